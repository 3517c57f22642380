"""The command `metaopt`.

Only what parses and plans is imported here, so that `plan`, `list`, `schema` and mistakes in a spec answer at once; Prefect, MLflow
and PyTorch come in when something is going to run.
"""

import gc
import importlib
import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from flows import environment, planning
from metaopt_core.errors import UserError
from metaopt_core.pipeline.home import TRACES, Home
from metaopt_core.spec.addresses import scrubbed
from metaopt_core.spec.pipeline import PipelineSpec
from metaopt_core.spec.schedule import CronSchedule, ScheduleSpec

if TYPE_CHECKING:
    from flows.planning import StagePlan
    from metaopt_core.pipeline.store import StageOutput
    from metaopt_core.spec.loader import Pipelines

DEFAULT_FILE = Path("pipelines.yaml")

app = typer.Typer(
    name="metaopt",
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Meta-learning, declared: [bold]pipelines.yaml[/bold] says what to meta-learn, and four stages carry it out:\n\n"
    "[cyan]generate[/cyan] a task distribution → [cyan]train[/cyan] MAML → [cyan]evaluate[/cyan] adaptation to new tasks → "
    "[cyan]log[/cyan] all to MLflow.\n\n"
    "A stage whose spec, sources and inputs have not changed is not run again.",
    epilog="[bold]A first session[/bold]\n\n"
    "[cyan]metaopt list[/cyan]  what there is to run\n\n"
    "[cyan]metaopt plan sinusoid-quick[/cyan]  what would run, and why\n\n"
    "[cyan]metaopt run sinusoid-quick[/cyan]  run it: no server, no account, no network\n\n"
    "[cyan]metaopt run sinusoid-quick --set train.outer.lr=0.002[/cyan]  the same with one value changed\n\n"
    "[cyan]metaopt sweep sinusoid-tuned[/cyan]  search better values for it\n\n"
    "[cyan]metaopt up[/cyan]  browse the runs in Prefect's and MLflow's pages\n\n"
    "Each command has more to say: [cyan]metaopt run --help[/cyan]. All state lies in .metaopt/ beside the pipelines file, "
    "or where METAOPT_HOME says.",
)

FileOption = Annotated[
    Path | None, typer.Option("--file", "-f", metavar="FILE", help="The pipelines file.", show_default=str(DEFAULT_FILE))
]
PipelineArgument = Annotated[str, typer.Argument(metavar="PIPELINE", help="A pipeline of the file; `metaopt list` shows them.")]
OnlyOption = Annotated[str | None, typer.Option("--only", metavar="STAGE", help="This stage alone, on the outputs that are there.")]
FromOption = Annotated[str | None, typer.Option("--from", metavar="STAGE", help="From this stage on.")]
ToOption = Annotated[str | None, typer.Option("--to", metavar="STAGE", help="Up to and with this stage.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Run the selected stages although their outputs are valid.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Another value for this time, as in train.outer.lr=0.002. Repeatable."),
]
RegisterOption = Annotated[
    bool, typer.Option("--register", help="Make a version of the registered model (log.register_as) although --set changes values.")
]
ProfileOption = Annotated[
    bool, typer.Option("--profile", help="Leave a trace of some training iterations that Perfetto or Chrome opens.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on standard output, for programs.")]


def _version(asked: bool) -> None:
    if asked:
        import metaopt_core

        print(f"metaopt {metaopt_core.__version__}")
        raise typer.Exit


VersionOption = Annotated[bool, typer.Option("--version", is_eager=True, callback=_version, help="Print the version.")]


@app.callback(invoke_without_command=True)
def root(context: typer.Context, file: FileOption = None, version: VersionOption = False) -> None:  # noqa: ARG001
    context.obj = file
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command(
    epilog="[bold]Examples[/bold]\n\n"
    "[cyan]metaopt run sinusoid[/cyan]\n\n"
    "[cyan]metaopt run sinusoid --set evaluate.steps=20[/cyan]  runs evaluate and log; the rest is up to date\n\n"
    "[cyan]metaopt run sinusoid --to train[/cyan]\n\n"
    "[cyan]metaopt run sinusoid --only evaluate --force[/cyan]\n\n"
    "[cyan]metaopt run sinusoid --json > result.json[/cyan]\n\n"
    "[cyan]metaopt run sinusoid --only train --force --profile[/cyan]  where training's time goes\n\n"
    "Exit status: 0 done or up to date, 1 a defect, 2 a mistake in the spec, the command or the data, 130 or 143 interrupted."
)
def run(
    context: typer.Context,
    pipeline: PipelineArgument,
    only: OnlyOption = None,
    first: FromOption = None,
    last: ToOption = None,
    force: ForceOption = False,
    sets: SetOption = None,
    register: RegisterOption = False,
    profile: ProfileOption = False,
    as_json: JsonOption = False,
    file: FileOption = None,
) -> None:
    """Run a pipeline, or the stages of it that are not up to date."""
    from metaopt_core.pipeline.repetitions import named, record, repeats
    from metaopt_core.pipeline.store import Store

    path = _file(context, file)
    selected = planning.select(only, first, last)
    spec = _to_run(path, pipeline, sets, register)
    home = Home.beside(path)
    store = Store(home)
    environment.prepare(home, quiet=True)
    started = time.monotonic()
    repeated = repeats(spec)
    plans = [planning.plan(one, store, selected, force) for one in repeated]
    running = [plan.stage for each in plans for plan in each if plan.runs]
    if profile:
        _trace(spec, home, running)
    if running or (spec.repetitions > 1 and "log" in selected and not record(home, spec).exists()):
        with _interruptible():
            _with_prefect(
                spec,
                home,
                running,
                "flows.pipeline",
                lambda flows: flows.pipeline(spec, only=only, first=first, last=last, force=force),
            )
        outputs = [_outputs(planning.plan(one, store)) for one in repeated]
    else:
        outputs = [_outputs(each) for each in plans]
        for one, each in zip(repeated, plans, strict=True):
            for plan in each:
                if plan.selected:
                    _say(f"{plan.stage}: up to date" + (f" ({named(spec, one)})" if spec.repetitions > 1 else ""))
                    store.remember(one.name, plan.identity)
    _finish(repeated, selected, home, plans, outputs, time.monotonic() - started, as_json)


@app.command(
    epilog="[bold]Examples[/bold]\n\n"
    "[cyan]metaopt sweep sinusoid-tuned --workers 2[/cyan]\n\n"
    "[cyan]metaopt sweep sinusoid-tuned --set sweep.trials=100[/cyan]  goes on with the trials that there are\n\n"
    "After Ctrl-C or a kill the same command goes on where it was."
)
def sweep(
    context: typer.Context,
    pipeline: PipelineArgument,
    workers: Annotated[int, typer.Option("--workers", "-w", min=1, metavar="N", help="Processes that carry out trials.")] = 1,
    sets: SetOption = None,
    as_json: JsonOption = False,
    file: FileOption = None,
) -> None:
    """Search better values for a pipeline with a `sweep:` block, run the best, and compare it with the pipeline as it stands."""
    path = _file(context, file)
    spec = _pipeline(path, pipeline, sets)
    if spec.sweep is None:
        raise UserError(
            f"{path}: {spec.name} has no `sweep:` block, which says what to search: expected sweep.parameters and a budget"
        )
    home = Home.beside(path)
    environment.prepare(home, quiet=True)
    with _interruptible():
        result = _with_prefect(
            spec, home, ["generate", "train", "evaluate", "log"], "flows.sweep", lambda flows: flows.sweep(spec, workers)
        )
    if as_json:
        _print_json(result)
    else:
        from flows import report

        report.show_sweep(result, home.root)


@app.command(
    epilog="[bold]Examples[/bold]\n\n"
    "[cyan]metaopt plan sinusoid[/cyan]\n\n"
    "[cyan]metaopt plan sinusoid --set train.inner.steps=5[/cyan]  what a change would cost"
)
def plan(
    context: typer.Context,
    pipeline: PipelineArgument,
    only: OnlyOption = None,
    first: FromOption = None,
    last: ToOption = None,
    force: ForceOption = False,
    sets: SetOption = None,
    register: RegisterOption = False,
    as_json: JsonOption = False,
    file: FileOption = None,
) -> None:
    """Say of each stage whether it is up to date, or would run and why. Nothing runs."""
    from metaopt_core.pipeline.repetitions import named, repeats
    from metaopt_core.pipeline.store import Store

    path = _file(context, file)
    selected = planning.select(only, first, last)
    spec = _to_run(path, pipeline, sets, register)
    home = Home.beside(path)
    plans = {named(spec, one): planning.plan(one, Store(home), selected, force) for one in repeats(spec)}
    if as_json:
        entries = [_plan_entry(plan) | ({"of": which} if which else {}) for which, each in plans.items() for plan in each]
        _print_json({"pipeline": spec.name, "home": str(home.root), "stages": entries})
        return
    for which, each in plans.items():
        for plan in each:
            print(
                f"{which}{'  ' if which else ''}{plan.stage:<9} {plan.status}"
                + (f": {'; '.join(plan.reasons)}" if plan.runs else "")
            )


@app.command("list", epilog="[bold]Example[/bold]\n\n[cyan]metaopt list -f experiments/pipelines.yaml --json[/cyan]")
def list_(context: typer.Context, as_json: JsonOption = False, file: FileOption = None) -> None:
    """List the pipelines of the file, and of those that it includes."""
    path = _file(context, file)
    specs = _load(path)
    if as_json:
        _print_json(
            [
                {
                    "name": spec.name,
                    "file": specs.included.get(spec.name, str(path)),
                    "description": spec.description,
                    "distribution": spec.generate.distribution,
                    "model": spec.train.model.name,
                    "iterations": spec.train.iterations,
                    "schedule": spec.schedule.model_dump(mode="json") if spec.schedule else None,
                }
                for spec in specs.values()
            ]
        )
        return
    width = max(map(len, specs), default=0)
    for spec in specs.values():
        schedule = f" [{_when(spec.schedule)}]" if spec.schedule else ""
        origin = f" ({specs.included[spec.name]})" if spec.name in specs.included else ""
        print(f"{spec.name:<{width}}  {spec.description}{schedule}{origin}")


@app.command(epilog="[bold]Example[/bold]\n\n[cyan]metaopt schema > pipelines.schema.json[/cyan]")
def schema() -> None:
    """Print the JSON Schema of a pipelines file, with which editors complete and check it."""
    from metaopt_core.spec.schema import file_schema

    print(json.dumps(file_schema(), indent=2, ensure_ascii=False))


@app.command(
    epilog="[bold]Examples[/bold]\n\n"
    "[cyan]metaopt up[/cyan]  in one terminal, then here:\n\n"
    "[cyan]metaopt serve[/cyan]  every pipeline with a schedule\n\n"
    "[cyan]metaopt serve sinusoid-quick[/cyan]  this one, on its schedule or, without one, when asked in Prefect's pages\n\n"
    "Pipelines are served as they are in the file now: after a change, start it again."
)
def serve(
    context: typer.Context,
    pipelines: Annotated[
        list[str] | None, typer.Argument(metavar="[PIPELINE]...", help="What to serve.", show_default="all that have a schedule")
    ] = None,
    file: FileOption = None,
) -> None:
    """Run pipelines on their schedules, and stages on demand, one run at a time, for a running Prefect server."""
    path = _file(context, file)
    specs = _load(path)
    scheduled = [
        spec for spec in specs.values() if spec.schedule and spec.name not in specs.included
    ]  # whoever serves that file has those
    chosen = [_named(specs, name, path) for name in pipelines] if pipelines else scheduled
    if not chosen:
        raise UserError(
            f"{path}: no pipeline has a schedule; give one `schedule:`, or name what to serve: metaopt serve {next(iter(specs))}"
        )
    home = Home.beside(path)
    environment.prepare(home, quiet=False)
    from flows.servers import prefect_api

    api = prefect_api(home)
    if api is None:
        raise UserError(
            "metaopt serve needs a running Prefect server, because schedules don't fire under the one that `metaopt run` embeds; "
            f"start one in another terminal with `{environment.command('up')}`, or name yours in {environment.API_URL}"
        )
    api.use()
    for spec in chosen:
        _say(f"serving {spec.name}: {_when(spec.schedule) if spec.schedule else 'when asked'}")
    _say(f"Prefect: {api.address.removesuffix('/api')}. Ctrl-C stops serving.")
    from flows.deployments import serve as serve_until_stopped

    serve_until_stopped(chosen, api.address)


@app.command(
    epilog="[bold]Examples[/bold]\n\n"
    "[cyan]metaopt up[/cyan]\n\n"
    "[cyan]metaopt up --prefect-port 4300 --mlflow-port 5100[/cyan]\n\n"
    "[cyan]metaopt up --password[/cyan]  on a machine that several people use\n\n"
    "[cyan]metaopt up --host 0.0.0.0[/cyan]  reachable from other machines, with a password"
)
def up(
    context: typer.Context,
    host: Annotated[str, typer.Option("--host", help="Where to listen; for other machines, a password is required.")] = "127.0.0.1",
    prefect_port: Annotated[int, typer.Option("--prefect-port", min=1, max=65535)] = 4200,
    mlflow_port: Annotated[int, typer.Option("--mlflow-port", min=1, max=65535)] = 5000,
    password: Annotated[
        bool, typer.Option("--password", help="Ask for a password, which is kept in the file `login` of the home.")
    ] = False,
    file: FileOption = None,
) -> None:
    """Start Prefect's and MLflow's servers on what was recorded here, and stop them with Ctrl-C."""
    home = Home.beside(_file(context, file))
    environment.prepare(home, quiet=False)
    from flows import servers

    servers.up(home, host, prefect_port, mlflow_port, password)


def main() -> None:
    """Entry point: a user's mistake is one plain message and exit status 2; an unexpected exception keeps its traceback."""
    try:
        app()
    except UserError as error:
        print(scrubbed(str(error)), file=sys.stderr)
        sys.exit(2)


# --- run ----------------------------------------------------------------------------------------------------------------


def _trace(spec: PipelineSpec, home: Home, running: Sequence[str]) -> None:
    """Let training leave its traces in a new folder."""
    if "train" not in running:
        raise UserError("--profile: training would not run, and there is nothing else to profile; --force runs what is up to date")
    traces = home.root / "traces" / f"{spec.name}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    os.environ[TRACES] = str(traces)
    _say(f"traces go to {traces}, a file for each phase of training: drop one on https://ui.perfetto.dev")


def _with_prefect(spec: PipelineSpec, home: Home, running: Sequence[str], module: str, call: Callable[[Any], Any]) -> Any:
    """Run a flow against a running Prefect server, or else against one that is embedded in this run.

    running: the stages whose tasks it is going to need. call: runs the flow, given the module that holds it.
    """
    from flows.servers import prefect_api

    api = prefect_api(home)
    embedded = None
    if api is None:
        from flows.embedded_server import EmbeddedServer

        embedded = EmbeddedServer(home)
        api = embedded.api
    _say(f"{'starting Prefect, embedded' if embedded else 'Prefect'}: {api.address.removesuffix('/api')}")
    api.use()
    # The server takes seconds to start, and so does this: they happen side by side. What is imported stays, so the garbage
    # collector need not look at it: that saves seconds, here and when the interpreter exits.
    gc.disable()
    flows = importlib.import_module(module)
    for stage in running:
        importlib.import_module(f"tasks.{stage}")
    if not {"train", "log"}.isdisjoint(running):
        tracking = importlib.import_module("metaopt_core.tracking.connection")
        if tracking.tracking_uri(home, spec) == tracking.embedded_uri(home):
            tracking.initialize(home)
    gc.freeze()
    gc.enable()
    if embedded is not None:
        embedded.wait()
    from flows.console import OwnLines

    OwnLines.install()
    return call(flows)


class _TerminatedError(KeyboardInterrupt):
    """SIGTERM, which is to end a run as Ctrl-C does."""


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C or SIGTERM ends the command with one line instead of a traceback. Training has saved a checkpoint by then."""

    def terminate(_number: int, _frame: FrameType | None) -> NoReturn:
        raise _TerminatedError

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except KeyboardInterrupt as interruption:
        number = signal.SIGTERM if isinstance(interruption, _TerminatedError) else signal.SIGINT
        _say(f"interrupted; what was finished is kept, and training goes on from where it was: {_again()}")
        raise typer.Exit(128 + number) from None  # the status that a shell reports
    finally:
        signal.signal(signal.SIGTERM, before)


def _again() -> str:
    """The command that goes on: with --force it would begin anew."""
    words = [word for word in sys.argv[1:] if word != "--force"]
    return shlex.join([environment.program(), *words])


def _outputs(plans: "Sequence[StagePlan]") -> "dict[str, StageOutput]":
    return {plan.stage: plan.output for plan in plans if plan.output is not None}


def _finish(
    specs: Sequence[PipelineSpec],
    selected: Sequence[str],
    home: Home,
    plans: "Sequence[Sequence[StagePlan]]",
    outputs: "Sequence[dict[str, StageOutput]]",
    seconds: float,
    as_json: bool,
) -> None:
    """Show, or print as JSON, the results of a pipeline: of one execution, or of one a seed."""
    from flows import report

    if not as_json:
        report.show({spec.seed: made for spec, made in zip(specs, outputs, strict=True)}, selected)
        _say(f"To browse all results: {environment.command('up')}")
        return
    whole = {"pipeline": specs[0].name, "home": str(home.root), "seconds": seconds}
    executions = [_execution(home, each, made) for each, made in zip(plans, outputs, strict=True)]
    if len(specs) == 1:
        _print_json(whole | executions[0])
    else:
        seeds = [{"seed": spec.seed} | execution for spec, execution in zip(specs, executions, strict=True)]
        _print_json(whole | {"seeds": seeds, "results": report.over_seeds(outputs)})


def _execution(home: Home, plans: "Sequence[StagePlan]", outputs: "dict[str, StageOutput]") -> dict[str, Any]:
    from flows import report
    from metaopt_core.tracking.links import links

    stages = []
    for plan in plans:
        output = outputs.get(plan.stage)
        stages.append(
            _plan_entry(plan)
            | {
                "status": "ran" if plan.runs else plan.status,
                "seconds": output.seconds if output else None,
                "folder": output.folder if output else None,
            }
        )
    return {
        "stages": stages,
        "results": report.summary(outputs),
        "figures": report.figures(outputs),
        "mlflow": outputs["log"].extra | links(home, outputs["log"].extra) if "log" in outputs else None,
    }


# --- what the commands share --------------------------------------------------------------------------------------------


def _file(context: typer.Context, file: Path | None) -> Path:
    """The pipelines file: `-f` after the command, else before it, else the default."""
    return file or context.obj or DEFAULT_FILE


def _load(path: Path, overrides: dict[str, list[str]] | None = None) -> "Pipelines":
    from metaopt_core.spec import user_source
    from metaopt_core.spec.loader import load

    os.environ[user_source.VARIABLE] = str(user_source.beside(path))  # where networks of the user's own are imported from
    return load(path, overrides or {})


def _pipeline(path: Path, name: str, sets: Sequence[str] | None) -> PipelineSpec:
    return _named(_load(path, {name: list(sets)} if sets else None), name, path)


def _to_run(path: Path, name: str, sets: Sequence[str] | None, register: bool) -> PipelineSpec:
    """A pipeline with other values for this time, which then makes a version of the registered model only if asked to."""
    spec = _pipeline(path, name, sets)
    if register and spec.log.register_as is None:
        raise UserError(f"--register: {name} has no log.register_as, the name of the registered model: --set log.register_as=NAME")
    if register or not sets:
        return spec
    run = planning.unless_tried_out(spec, _pipeline(path, name, None))
    if run != spec:
        _say(f"no version of {spec.log.register_as} is made of a run with --set; --register makes one")
    return run


def _named(specs: dict[str, PipelineSpec], name: str, path: Path) -> PipelineSpec:
    if name not in specs:
        raise UserError(f"{path}: no pipeline {name}{planning.suggestion(name, specs)}; expected one of {', '.join(specs)}")
    return specs[name]


def _plan_entry(plan: "StagePlan") -> dict[str, Any]:
    return {"stage": plan.stage, "fingerprint": plan.identity.fingerprint, "status": plan.status, "reasons": list(plan.reasons)}


def _when(schedule: ScheduleSpec) -> str:
    return f"cron {schedule.cron} {schedule.timezone}" if isinstance(schedule, CronSchedule) else f"every {schedule.every}"


def _print_json(document: Any) -> None:
    print(json.dumps(document, indent=2, ensure_ascii=False))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
