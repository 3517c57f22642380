"""Outputs of generate, train and evaluate as the log stage finds them, made by hand: small, and without any training."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from safetensors.torch import save_file

from metaopt_core.distributions.contract import record
from metaopt_core.meta.learner import Learner
from metaopt_core.pipeline.home import Home
from metaopt_core.pipeline.identity import identities
from metaopt_core.pipeline.store import TIMES, StageOutput, Store
from metaopt_core.spec.distribution import TaskShape
from metaopt_core.spec.pipeline import PipelineSpec
from tests.hand_made import summary_of

METHODS = ("maml", "pretrained", "random")
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
    record(spec.generate, shape_of(spec), spec.seed, folder)
    Figure().savefig(folder / "tasks.png")


def shape_of(spec: PipelineSpec) -> TaskShape:
    """What its tasks look like, for a distribution whose spec says so."""
    assert spec.generate.shape is not None
    return spec.generate.shape


def _train(folder: Path, spec: PipelineSpec) -> None:
    for name in ("parameters", "pretrained"):
        save_file(Learner.from_spec(spec, shape_of(spec)).network.init(spec.seed), folder / f"{name}.safetensors")
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
    table = pd.DataFrame(rows).assign(inner_lr=0.01)
    table.drop(columns="inner_lr").to_parquet(folder / "tasks.parquet", index=False)
    over_training = [("maml", iteration, "meta_test_loss", 1 / iteration) for iteration in (10, 20, 30)]
    columns = ["phase", "iteration", "name", "value"]
    pd.DataFrame(over_training, columns=columns).to_parquet(folder / "over_training.parquet", index=False)
    summary = summary_of(spec, table)
    loss = {"ci95": 0.1, "median": 0.9, "q05": 0.1, "q25": 0.5, "q75": 1.5, "q95": 2.0, "worst": 2.0}
    for method in summary["methods"].values():
        for step, entry in enumerate(method["steps"]):
            entry |= {"diverged": step, "improved": 0.5, "loss": {"mean": 1 / (step + 1), **loss}}
    for difference in summary["differences"]:
        difference |= {"loss": {"mean": -0.25, "ci95": 0.1, "p": 0.001, "survives": True}, "better": 0.75}
    (folder / "summary.json").write_text(json.dumps(summary))
    for figure in ("adaptation", "examples"):
        Figure().savefig(folder / f"{figure}.png")
