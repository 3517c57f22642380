"""Stage 2, train: the initial parameters, by MAML, and those of the baselines."""

import shutil
from collections.abc import Callable

import pandas as pd
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext
from safetensors.torch import save_file

from metaopt_core.distributions.contract import load
from metaopt_core.errors import StoppedError, UserError
from metaopt_core.meta.learner import device_named
from metaopt_core.methods.contract import Setting, compared, fit_all, parameters_file
from metaopt_core.pipeline.execution import Execution
from metaopt_core.pipeline.store import TIMES, StageOutput
from metaopt_core.reporting import data_check
from metaopt_core.tracking.runs import curve_name, running
from metaopt_core.training.loop import Record
from metaopt_core.training.phase import SNAPSHOTS
from metaopt_core.training.phase import train as meta_train
from tasks.retrying import DELAYS, mlflow_was_away


@task(
    name="train",
    cache_policy=NO_CACHE,
    retries=len(DELAYS),
    retry_delay_seconds=DELAYS,
    retry_condition_fn=mlflow_was_away,
)
def train(
    execution: Execution, upstream: dict[str, StageOutput], watch: Callable[[str, Record], None] = lambda *_: None
) -> StageOutput:
    """Publish the parameters and the curves of training; the curves also go to MLflow as they grow.

    Retried if MLflow could not be reached at the start; after a kill the next run continues from the last checkpoint.
    watch: called with (phase, point) for every point of a curve; if it raises StoppedError, training ends for good.
    """
    spec, store, identity = execution.spec, execution.store, execution.identities["train"]
    checkpoints = execution.home.checkpoints / identity.fingerprint
    distribution, shape = load(upstream["generate"] / "", spec.seed)
    if refusals := data_check.asked(spec, distribution)[1]:  # before hours of training, also what evaluation would stop at
        raise UserError("\n".join(refusals))
    setting, learned = Setting(spec, shape, distribution), spec.learned.key(spec.train)
    methods = [method for method in compared(spec) if method.trained]
    phases = [method.phase(setting) for method in methods]
    if FlowRunContext.get():
        for phase in phases:
            if phase.computed_by:
                get_run_logger().info("meta-gradients by %s", phase.computed_by)
    with running(execution) as run, store.publish(identity, upstream) as (folder, extra):

        def on_record(phase: str, record: Record) -> None:
            run.log_curve(curve_name(phase, record.name), record.iteration, record.value, record.time)
            watch(phase, record)

        try:
            trained = meta_train(spec, shape, distribution, phases, checkpoints, on_record, execution.traces)
        except StoppedError:
            shutil.rmtree(checkpoints, ignore_errors=True)
            raise
        fitted = fit_all(setting)
        for method in methods:
            save_file(trained[method.key(spec.train)].params, folder / parameters_file(spec, method))
        for method, (params, _) in fitted.items():
            save_file(params, folder / parameters_file(spec, method))
        shutil.copytree(checkpoints / SNAPSHOTS, folder / SNAPSHOTS)
        rows = [(phase, *record) for phase, result in trained.items() for record in result.history]
        history = pd.DataFrame(rows, columns=["phase", "iteration", "name", "value", "time"])
        history.drop(columns="time").to_parquet(folder / "history.parquet", index=False)
        history.drop(columns="value").to_parquet(folder / TIMES, index=False)
        extra |= {
            "mlflow_run": run.id,
            "iterations_by_phase": {phase: result.iterations for phase, result in trained.items()},
            "best_iteration": trained[learned].best_iteration,
            "seconds_by_phase": {phase: round(result.seconds, 3) for phase, result in trained.items()},
            "seconds_of_fits": {method.key(spec.train): round(seconds, 3) for method, (_, seconds) in fitted.items()},
            "time_shares": {phase: result.time_shares for phase, result in trained.items()},
            "device": str(device_named(spec.device)),
        }
    shutil.rmtree(checkpoints)
    return store.made(identity)
