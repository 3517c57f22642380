"""Stage 3, evaluate: how well each method adapts to the meta-test tasks."""

import json

import pandas as pd
from prefect import task
from prefect.cache_policies import NO_CACHE
from safetensors.torch import load_file

from metaopt_core.distributions.materialize import load
from metaopt_core.evaluation import protocol as evaluation
from metaopt_core.evaluation.summary import worst_tasks
from metaopt_core.pipeline.home import Home
from metaopt_core.pipeline.stages import Identity
from metaopt_core.pipeline.store import StageOutput, Store
from metaopt_core.reporting import figures as plots
from metaopt_core.spec.models import PipelineSpec

_TASKS_SHOWN = 4


@task(name="evaluate", cache_policy=NO_CACHE)
def evaluate(spec: PipelineSpec, home: Home, identity: Identity, upstream: dict[str, StageOutput]) -> StageOutput:
    """Publish a row a variant, method and task (tasks.parquet), the statistics (summary.json) and figures.

    Not retried: it only computes.
    """
    store = Store(home)
    distribution = load(upstream["generate"] / "")
    files = {"maml": "parameters"} | {name: name for name in spec.baselines}
    trained = {name: load_file(upstream["train"] / f"{file}.safetensors") for name, file in files.items()}
    history = pd.read_parquet(upstream["train"] / "history.parquet")
    with store.publish(identity, upstream) as (folder, _):
        compared = evaluation.methods(spec, distribution, trained)
        table = evaluation.evaluate(spec, distribution, compared)
        table.to_parquet(folder / "tasks.parquet", index=False)
        over_training = evaluation.over_training(spec, distribution, load_file(upstream["train"] / "snapshots.safetensors"))
        over_training.to_parquet(folder / "over_training.parquet", index=False)
        summary = evaluation.summarize(spec, table)
        (folder / "summary.json").write_text(json.dumps(summary, indent=1))

        plots.save(plots.adaptation(summary), folder / "adaptation.png")
        told = upstream["train"].extra
        seconds = told["seconds_by_phase"]["maml"] / told["iterations_by_phase"]["maml"]
        plots.save(
            plots.training(pd.concat([history, over_training]), summary, told["best_iteration"], seconds), folder / "training.png"
        )
        plots.save(plots.losses(table, summary), folder / "losses.png")
        if summary["shifted"]:
            plots.save(plots.shifted(summary), folder / "shifted.png")
        tasks, steps, model = evaluation.test_tasks(spec, distribution), spec.horizon, compared[summary["model"]]
        worst = tasks[worst_tasks(summary, table, _TASKS_SHOWN)]
        if spec.train.ways:
            plots.save(plots.calibration(summary), folder / "calibration.png")
            plots.save(plots.pictures(model.learner, model.params, tasks[:_TASKS_SHOWN], steps), folder / "examples.png")
            plots.save(plots.pictures(model.learner, model.params, worst, steps), folder / "worst.png")
        else:
            shown = [method for method in compared.values() if summary["methods"][method.name]["takes_steps"]]
            plots.save(plots.fits(shown, tasks[:_TASKS_SHOWN], steps), folder / "examples.png")
            plots.save(plots.fits([model], worst, steps), folder / "worst.png")
    return store.made(identity)
