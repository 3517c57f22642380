"""`metaopt sweep`: trials as flow runs, in one or more processes, then the best setting compared with the pipeline's own."""

import contextlib
import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import IO, Any

import pandas as pd
from optuna.trial import FrozenTrial
from prefect import flow, get_run_logger
from pydantic import ValidationError
from safetensors.torch import load_file

from flows import console, environment
from flows.pipeline import pipeline
from flows.stage_flows import carry_out
from metaopt_core.distributions.contract import load
from metaopt_core.errors import DivergedError, StoppedError, UserError
from metaopt_core.evaluation.protocol import objective
from metaopt_core.evaluation.statistics import between, of_method
from metaopt_core.evaluation.summary import as_read
from metaopt_core.methods.contract import Setting
from metaopt_core.pipeline import search as sweeps
from metaopt_core.pipeline.execution import Execution
from metaopt_core.pipeline.home import Home
from metaopt_core.pipeline.search import Claim, Sweep
from metaopt_core.pipeline.store import StageOutput, write_atomically
from metaopt_core.reporting.sweep_page import render
from metaopt_core.spec.as_yaml import spec_yaml
from metaopt_core.spec.pipeline import PipelineSpec
from metaopt_core.spec.ranges import value_at, with_values
from metaopt_core.tracking.runs import running

_SECONDS_BETWEEN_LOOKS = 0.5
_OF_A_TRIAL = "trial "  # the prefix of a line about one


@flow(flow_run_name="{spec.name}", persist_result=False, validate_parameters=True)
def sweep(spec: PipelineSpec, workers: int = 1) -> dict[str, Any]:
    """Search the values that the spec's sweep names, then run the best setting and compare it with the pipeline's own.

    workers: processes that run trials, including this one.
    """
    execution = environment.execution(spec)
    spec = execution.spec
    search = Sweep(execution.home, spec)
    with running(execution, group=search.name) as run, _helpers(spec, run.id, workers - 1, execution.home):
        carry_out_trials(search, run.id)
        while search.running():  # in another process; if that dies, its trial is run here
            time.sleep(_SECONDS_BETWEEN_LOOKS)
            carry_out_trials(search, run.id)
        default = with_values(spec, {})
        best, made = _in_full(search)
        get_run_logger().info("the pipeline's own setting, for comparison:")
        outputs = {"best": made, "default": pipeline(default, last="evaluate")}
        result = _result(search, best, default, outputs)
        run.log_points(
            [
                run.point("objective", trial.number, trial.value, trial.datetime_complete.timestamp())
                for trial in search.finished()
                if trial.value is not None and trial.datetime_complete is not None
            ]
        )
        run.client.log_artifacts(run.id, str(search.folder), "sweep")
    return result


def carry_out_trials(search: Sweep, parent: str) -> None:
    """Trials, one after the other, until the budget is spent. parent: id of the MLflow run that theirs are nested below."""
    while True:
        with search.claimed() as claim:
            if claim is None:
                return
            try:
                spec = claim.spec()
            except ValidationError as error:  # each value is valid by itself
                claim.finish(None)
                get_run_logger().info("%s%d: impossible together (%s)", _OF_A_TRIAL, claim.number, error.errors()[0]["msg"])
                continue
            trial(spec, claim, parent)


@flow(flow_run_name="{spec.name}", persist_result=False, validate_parameters=False)
def trial(spec: PipelineSpec, claim: Claim, parent: str) -> None:
    """Train with one setting and measure the objective, in an MLflow run below the sweep's."""
    logger, search = get_run_logger(), claim.sweep
    execution = Execution.of(search.home, spec)
    with running(execution) as run:
        run.nest(parent)
        value = None
        try:
            generated = carry_out(execution, "generate", aside=True)
            watch = claim.watch(spec.learned.key(spec.train), spec.train.iterations)
            trained = carry_out(execution, "train", aside=True, watch=watch)
            parameters, steps = load_file(trained / "parameters.safetensors"), search.steps_of(spec)
            distribution, shape = load(generated / "", spec.seed)
            value = objective(Setting(spec, shape, distribution), parameters, search.search.objective.metric, steps)
            run.log_points([run.point("objective", 0, value, time.time())])
            outcome = f"{value:.4g}"
        except StoppedError as error:
            outcome = str(error)
        except DivergedError as error:
            outcome = f"diverged ({str(error).partition(':')[0]})"
        run.client.set_tag(run.id, "metaopt.trial", outcome)
    claim.finish(value)
    best = search.best()
    known = f" (best {best.value:.4g})" if best is not None else ""
    shown = ", ".join(f"{key}={_short(value)}" for key, value in claim.setting.items())
    logger.info("%s%d: %s%s; %s; %s", _OF_A_TRIAL, claim.number, outcome, known, shown, search.progress())


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


# --- the outcome --------------------------------------------------------------------------------------------------------


def _in_full(search: Sweep) -> tuple[PipelineSpec, dict[str, StageOutput]]:
    """Run the pipeline with the values of the best trial, or of the best one that doesn't diverge in a full-length run.

    Raises UserError if no trial completed.
    """
    while (trial := search.best()) is not None:
        values = search.decoded(trial.params) | {"log.experiment": search.spec.log.experiment or search.spec.name}
        values["log.register_as"] = None  # `best.yaml` keeps it, for runs of that file
        spec = with_values(search.spec, values, name=f"{search.spec.name}-best")
        get_run_logger().info("the setting of trial %d in full, as %s:", trial.number, spec.name)
        try:
            return spec, pipeline(spec)
        except DivergedError as error:
            get_run_logger().info("trial %d skipped: diverged in the full-length run (%s)", trial.number, error)
            search.give_up(trial)
    raise UserError(
        f"{search.spec.name}: none of {len(search.finished())} trials completed: smaller step sizes in sweep.parameters, or "
        "another sweep.trial, may help"
    )


def _result(search: Sweep, best: PipelineSpec, default: PipelineSpec, outputs: dict[str, dict[str, StageOutput]]) -> dict[str, Any]:
    """What `metaopt sweep` shows; written beside the best spec, the table of trials and the figures."""
    search.folder.mkdir(parents=True, exist_ok=True)
    file = search.folder / "best.yaml"
    log = best.log.model_copy(update={"register_as": search.spec.log.register_as})
    again = best.model_copy(update={"seeds": search.spec.seeds, "splits": search.spec.splits, "log": log})
    write_atomically(file, spec_yaml(again))
    search.study.trials_dataframe().to_csv(search.folder / "trials.csv", index=False)
    metric, trial = search.search.objective.metric, search.best()
    assert trial is not None  # there is a best setting
    columns = {name: f"{metric}_{search.steps_of(spec)}" for name, spec in (("best", best), ("default", default))}
    tables = {name: pd.read_parquet(outputs[name]["evaluate"] / "tasks.parquet") for name in columns}
    methods = {name: json.loads((outputs[name]["evaluate"] / "summary.json").read_text())["model"] for name in columns}
    read = next(one for one in search.spec.metrics if one.name == metric)
    same_tasks = outputs["best"]["generate"].content == outputs["default"]["generate"].content
    result = {
        "study": search.name,
        "storage": search.storage,
        "trials": len(search.finished()),
        "pruned": sum(_told(search, one)["pruned"] for one in search.finished()),
        "metric": metric,
        "metrics": {metric: as_read(read)},
        "best": {
            "trial": trial.number,
            "objective": trial.value,
            "values": search.decoded(trial.params),
            "steps": search.steps_of(best),
            "test": of_method(tables["best"], columns["best"], methods["best"], read.larger_is_better),
            "spec": str(file),
            "pipeline": best.name,
        },
        "default": {
            "values": {key: value_at(search.spec, key) for key in search.search.parameters},
            "steps": search.steps_of(default),
            "test": of_method(tables["default"], columns["default"], methods["default"], read.larger_is_better),
        },
        "difference": between(
            *(tables["default"], columns["default"], methods["default"]), *(tables["best"], columns["best"], methods["best"])
        )
        if same_tasks
        else None,
        "history": [_told(search, one) for one in search.finished()],
        "figures": [str(path) for path in sweeps.figures(search)],
        "report": str(search.folder / "report.html"),
    }
    reports = {best.name: outputs["best"]["log"] / "report.html"} if "log" in outputs["best"] else {}
    (search.folder / "report.html").write_text(render(search.spec, result, best, reports, search.folder), encoding="utf-8")
    write_atomically(search.folder / "result.json", json.dumps(result, indent=1))
    return result


def _told(search: Sweep, trial: FrozenTrial) -> dict[str, Any]:
    """A trial as JSON values."""
    return {
        "number": trial.number,
        "value": trial.value,
        "pruned": trial.value is None or trial.state.name == "PRUNED",
        "values": search.decoded(trial.params),
        "seconds": trial.duration.total_seconds() if trial.duration else 0.0,
    }


# --- further processes --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _helpers(spec: PipelineSpec, parent: str, count: int, home: Home) -> Iterator[None]:
    """Further processes that run trials. They stop when the block is left or this process is gone."""
    logs = home.root / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        for number in range(2, count + 2):
            log = stack.enter_context((logs / f"sweep-worker-{number}.log").open("ab"))
            process = subprocess.Popen(
                environment.python("flows.sweep_worker"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C goes to the sweep, which then closes the worker's standard input
            )
            assert process.stdin is not None
            assert process.stdout is not None
            relay = threading.Thread(target=_relay, args=(process.stdout, log, number), daemon=True)
            relay.start()
            stack.callback(relay.join)
            stack.callback(process.wait)
            stack.callback(process.stdin.close)
            job = {"spec": spec.model_dump(mode="json", exclude_unset=True), "parent": parent}
            process.stdin.write(json.dumps(job).encode() + b"\n")
            process.stdin.flush()
        yield


def _relay(lines: IO[bytes], log: IO[bytes], number: int) -> None:
    """Write a worker's output to its log, and show the results of its trials here."""
    for line in lines:
        log.write(line)
        log.flush()
        if line.startswith(_OF_A_TRIAL.encode()):
            console.say(f"worker {number}: {line.decode(errors='replace').rstrip()}")


def work(spec: PipelineSpec, parent: str) -> None:
    """The work of a further process: trials, then the pipeline's own setting, while the first process runs the best one."""
    search = Sweep(environment.current_home(), spec.located(os.environ))
    carry_out_trials(search, parent)
    pipeline(with_values(spec, {}), last="evaluate")
