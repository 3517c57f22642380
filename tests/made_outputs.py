"""Outputs of generate, train and evaluate as the log stage finds them, made by hand: small, and without any training."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from safetensors.torch import save_file

from metaopt_core.meta.learner import Learner
from metaopt_core.pipeline.home import Home
from metaopt_core.pipeline.stages import identities
from metaopt_core.pipeline.store import TIMES, StageOutput, Store
from metaopt_core.spec.pipeline import PipelineSpec

METHODS = {"maml": "MAML", "pretrained": "pre-trained", "random": "random init"}
TASKS = 4


def sinusoid_spec(name: str, **blocks: Any) -> PipelineSpec:
    """A small sinusoid pipeline; keywords replace whole blocks."""
    train = {"model": {"name": "mlp", "hidden": [8]}, "iterations": 30, "shots": 5, "queries": 5}
    body = {
        "name": name,
        "description": "A test.",
        "generate": {"distribution": "sinusoid"},
        "train": train,
        "evaluate": {"steps": 2},
    }
    return PipelineSpec.model_validate_json(json.dumps(body | blocks))


def point_time(iteration: int) -> float:
    """When a point of the made-up history was made, in seconds since 1970."""
    return 1_700_000_000 + 60.5 * iteration


def publish_upstream(home: Home, spec: PipelineSpec, mlflow_run: str | None = None) -> dict[str, StageOutput]:
    """Publish the made-up outputs. mlflow_run: the run that training belongs to."""
    made: dict[str, StageOutput] = {}
    for stage, write in (("generate", _generate), ("train", _train), ("evaluate", _evaluate)):
        identity = identities(spec)[stage]
        with Store(home).publish(identity, {name: made[name] for name in identity.upstream}) as (folder, extra):
            write(folder, spec)
            if stage == "train":
                seconds = {"maml": 2.0, "pretrained": 1.0}
                extra |= {
                    "mlflow_run": mlflow_run,
                    "iterations_by_phase": {"maml": 30, "pretrained": 30},
                    "best_iteration": 20,
                    "seconds_by_phase": seconds,
                    "device": "cpu",
                }
        made[stage] = Store(home).made(identity)
    return made


def _generate(folder: Path, spec: PipelineSpec) -> None:
    (folder / "distribution.json").write_text(spec.generate.model_dump_json())
    Figure().savefig(folder / "tasks.png")


def _train(folder: Path, spec: PipelineSpec) -> None:
    for name in ("parameters", "pretrained"):
        save_file(Learner.from_spec(spec).network.init(spec.seed), folder / f"{name}.safetensors")
    rows = [("maml", iteration, "query_loss", 1 / iteration) for iteration in range(1, spec.train.iterations + 1)]
    history = pd.DataFrame(rows, columns=["phase", "iteration", "name", "value"])
    history.to_parquet(folder / "history.parquet", index=False)
    times = history.drop(columns="value").assign(time=[point_time(iteration) for iteration in history["iteration"]])
    times.to_parquet(folder / TIMES, index=False)


def _evaluate(folder: Path, spec: PipelineSpec) -> None:
    steps = range(spec.evaluate.steps + 1)
    rows = [
        {"variant": "in-distribution", "method": method, "task": task, **{f"loss_{step}": 1 / (step + 1) for step in steps}}
        for method in METHODS
        for task in range(TASKS)
    ]
    pd.DataFrame(rows).to_parquet(folder / "tasks.parquet", index=False)
    over_training = [("maml", iteration, "meta_test_loss", 1 / iteration) for iteration in (10, 20, 30)]
    columns = ["phase", "iteration", "name", "value"]
    pd.DataFrame(over_training, columns=columns).to_parquet(folder / "over_training.parquet", index=False)
    loss = {"ci95": 0.1, "median": 0.9, "q05": 0.1, "q25": 0.5, "q75": 1.5, "q95": 2.0, "worst": 2.0}
    methods = {
        method: {
            "label": label,
            "takes_steps": True,
            "inner_lr": 0.01,
            "inductive": None,
            "collected": None,
            "calibration": None,
            "steps": [
                {"step": step, "diverged": step, "improved": 0.5, "loss": {"mean": 1 / (step + 1), **loss}, "accuracy": None}
                for step in steps
            ],
        }
        for method, label in METHODS.items()
    }
    protocol: dict[str, Any] = {"metric": "mse", "normalization": None, "tasks": TASKS, "ways": None, "shots": 5, "queries": 5}
    protocol |= {"inner_lr": 0.01, "learned_lr": None, "baseline_lrs": [0.01], "horizon": spec.horizon}
    protocol |= {"algorithm": "MAML", "model": "maml", "shifted": {}}
    protocol["differences"] = [
        {"of": "maml", "against": other, "loss": {"mean": -0.25, "ci95": 0.1}, "accuracy": None, "better": 0.75}
        for other in ("pretrained", "random")
    ]
    (folder / "summary.json").write_text(json.dumps(protocol | {"methods": methods}))
    for figure in ("adaptation", "examples"):
        Figure().savefig(folder / f"{figure}.png")
