"""Stage 3, evaluate: how well each method adapts to the meta-test tasks."""

import json

import pandas as pd
from prefect import task
from prefect.cache_policies import NO_CACHE
from safetensors.torch import load_file

from metaopt_core.distributions.contract import load
from metaopt_core.evaluation import protocol
from metaopt_core.evaluation.choice import choose
from metaopt_core.evaluation.summary import summarize
from metaopt_core.evaluation.verdict import worst_tasks
from metaopt_core.methods.contract import Setting, compared, parameters_file
from metaopt_core.pipeline.execution import Execution
from metaopt_core.pipeline.store import StageOutput
from metaopt_core.reporting import figures
from metaopt_core.training.phase import SNAPSHOTS

_TASKS_SHOWN = 4


@task(name="evaluate", cache_policy=NO_CACHE)
def evaluate(execution: Execution, upstream: dict[str, StageOutput]) -> StageOutput:
    """Publish one row for each variant, method and task (tasks.parquet), the statistics (summary.json) and figures.

    Not retried: it only computes.
    """
    spec, store, identity = execution.spec, execution.store, execution.identities["evaluate"]
    learned = spec.learned.key(spec.train)
    distribution, shape = load(upstream["generate"] / "", spec.seed)
    setting, methods = Setting(spec, shape, distribution), compared(spec)
    trained = {
        method.key(spec.train): load_file(upstream["train"] / parameters_file(spec, method))
        for method in methods
        if method.trained or method.fitted
    }
    history = pd.read_parquet(upstream["train"] / "history.parquet")
    with store.publish(identity, upstream) as (folder, _):
        ready = protocol.prepare(setting, methods, trained)
        chosen = choose(setting, ready)
        measured = protocol.evaluate(setting, ready)
        table = measured.tasks
        table.to_parquet(folder / "tasks.parquet", index=False)
        summary = summarize(setting, measured, ready, chosen)
        (folder / "summary.json").write_text(json.dumps(summary, indent=1))

        figures.save(figures.adaptation(summary), folder / "adaptation.png")
        told = upstream["train"].extra
        seconds = told["seconds_by_phase"][learned] / told["iterations_by_phase"][learned]
        if spec.evaluate.over_training:
            over_training = protocol.over_training(setting, learned, upstream["train"] / SNAPSHOTS)
            over_training.to_parquet(folder / "over_training.parquet", index=False)
            history = pd.concat([history, over_training])
        if curves := figures.training(history, summary, told["best_iteration"], seconds):
            figures.save(curves, folder / "training.png")
        figures.save(figures.losses(table, summary), folder / "losses.png")
        if len(summary.get("by_shots", ())) > 1:
            figures.save(figures.by_shots(summary), folder / "by_shots.png")
        if summary["shifted"]:
            figures.save(figures.shifted(summary), folder / "shifted.png")
        if any(method["calibration"] for method in summary["methods"].values()):
            figures.save(figures.calibration(summary), folder / "calibration.png")
        tasks, steps = protocol.test_tasks(spec, distribution), spec.horizon
        of_model = [one for one in ready if one.key == summary["model"]]
        others = [one for one in ready if one.method.takes_steps and one.key != summary["model"]]
        for name, shown, of in (
            ("examples", tasks.draw(0, min(_TASKS_SHOWN, len(tasks))), of_model + others),
            ("worst", tasks.picked(worst_tasks(summary, table, _TASKS_SHOWN)), of_model),
        ):
            figures.save(distribution.examples(shown, protocol.predictions(of, shown, steps)), folder / f"{name}.png")
    return store.made(identity)
