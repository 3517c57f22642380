"""The command `metaopt`.

Only what parsing and planning need is imported here, so that `plan`, `list`, `schema` and spec errors answer at once; Prefect,
MLflow and PyTorch are imported when something is going to run.
"""

import json
import shutil
import sys
import textwrap
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows import complete, console, data_commands, environment, full_disk, launch, pipelines_file, planning, typer_commands
from flows.console import Detail
from metaopt_core.errors import UserError
from metaopt_core.pipeline.stages import PUBLISHING, STAGES
from metaopt_core.spec.addresses import scrubbed

if TYPE_CHECKING:
    from flows.planning import StagePlan
    from metaopt_core.pipeline.store import StageOutput

app = typer.Typer(
    name="metaopt",
    cls=typer_commands.Group,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Declarative meta-learning: [bold]pipelines.yaml[/bold] says what to meta-learn, and stages carry it out, one after the "
    "other:\n\n" + "\n\n".join(f"[cyan]{stage.name:<9}[/cyan] {stage.about}" for stage in STAGES.values()) + "\n\n"
    "A stage whose spec, code and inputs have not changed is not run again.",
    epilog="[bold]A first session[/bold]\n\n"
    "[cyan]metaopt list[/cyan]  the pipelines of the file\n\n"
    "[cyan]metaopt plan sinusoid-quick[/cyan]  what would run, and why\n\n"
    "[cyan]metaopt run sinusoid-quick[/cyan]  run it: no server, no account, no network\n\n"
    "[cyan]metaopt run sinusoid-quick --set train.outer.lr=0.002[/cyan]  the same with one value changed\n\n"
    "[cyan]metaopt sweep sinusoid-tuned[/cyan]  search for better values\n\n"
    "[cyan]metaopt runs[/cyan]  past runs side by side\n\n"
    "[cyan]metaopt up[/cyan]  browse the runs in Prefect's and MLflow's pages\n\n"
    "Each command has its own help: [cyan]metaopt run --help[/cyan]. All state is in .metaopt/ beside the pipelines file, "
    "or in the folder that METAOPT_HOME names.",
)

command = partial(app.command, cls=typer_commands.Command)
command(epilog=data_commands.OF_INIT)(data_commands.init)
app.add_typer(data_commands.data, name="data")

FileOption = Annotated[
    Path | None, typer.Option("--file", "-f", metavar="FILE", help="The pipelines file.", show_default=str(pipelines_file.DEFAULT))
]
PipelineArgument = Annotated[
    str,
    typer.Argument(
        metavar="PIPELINE", help="A pipeline of the file; `metaopt list` shows them.", autocompletion=complete.pipelines
    ),
]
OnlyOption = Annotated[
    str | None,
    typer.Option("--only", metavar="STAGE", autocompletion=complete.stages, help="Only this stage, on the existing outputs."),
]
FromOption = Annotated[
    str | None, typer.Option("--from", metavar="STAGE", autocompletion=complete.stages, help="From this stage on.")
]
ToOption = Annotated[
    str | None, typer.Option("--to", metavar="STAGE", autocompletion=complete.stages, help="Up to and including this stage.")
]
ForceOption = Annotated[bool, typer.Option("--force", help="Run the selected stages even if their outputs are valid.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a value for this run, as in train.outer.lr=0.002. Repeatable."),
]
RegisterOption = Annotated[
    bool, typer.Option("--register", help="Add a version of the registered model (log.register_as) even if --set changes values.")
]
ProfileOption = Annotated[
    bool, typer.Option("--profile", help="Write a trace of some training iterations, for Perfetto or Chrome.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on standard output, for programs.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress, and only the verdict of the results.")]
VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="Show every table and figure, and Prefect's messages.")]


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


@command(
    epilog="[bold]Examples[/bold]\n\n"
    "[cyan]metaopt run sinusoid[/cyan]\n\n"
    "[cyan]metaopt run sinusoid --set evaluate.steps=20[/cyan]  runs evaluate and log; the rest is up to date\n\n"
    "[cyan]metaopt run sinusoid --to train[/cyan]\n\n"
    "[cyan]metaopt run sinusoid --only evaluate --force[/cyan]\n\n"
    "[cyan]metaopt run sinusoid --json > result.json[/cyan]\n\n"
    "[cyan]metaopt run sinusoid --only train --force --profile[/cyan]  where the training time goes\n\n"
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
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    as_json: JsonOption = False,
    file: FileOption = None,
) -> None:
    """Run a pipeline, or the stages of it that are not up to date."""
    from metaopt_core.pipeline.repetitions import named, record, repeats

    detail = _detail(quiet, verbose)
    path = _file(context, file)
    selected = planning.select(only, first, last)
    spec = pipelines_file.to_run(path, pipeline, sets, register)
    home = environment.home_of(path)
    environment.prepare(home, quiet=detail < Detail.VERBOSE)
    started = time.monotonic()
    executions = {named(spec, each): environment.execution(each, home) for each in repeats(spec)}
    plans = {which: planning.plan(execution, selected, force) for which, execution in executions.items()}
    running = [plan.stage for each in plans.values() for plan in each if plan.runs]
    traces = launch.trace(spec, home, running) if profile else None
    if running or (spec.repetitions > 1 and PUBLISHING in selected and not record(home, spec).exists()):
        with launch.interruptible():
            launch.with_prefect(
                spec,
                home,
                running,
                "flows.pipeline",
                lambda flows: flows.pipeline(spec, only=only, first=first, last=last, force=force),
            )
        outputs = {which: _outputs(planning.plan(execution)) for which, execution in executions.items()}
    else:
        outputs = {which: _outputs(each) for which, each in plans.items()}
        for which, each in plans.items():
            for plan in each:
                if plan.selected:
                    console.say(f"{plan.stage}: up to date" + (f" ({which})" if which else ""))
                    executions[which].store.remember(spec.name, plan.identity)
    from flows import report

    if as_json:
        whole = {"pipeline": spec.name, "home": str(home.root), "seconds": time.monotonic() - started}
        console.print_json(whole | report.as_json(home, spec, plans, outputs))
    else:
        report.show(home, spec, outputs, selected, detail, traces)


@command(
    epilog="[bold]Examples[/bold]\n\n"
    "[cyan]metaopt sweep sinusoid-tuned --workers 2[/cyan]\n\n"
    "[cyan]metaopt sweep sinusoid-tuned --set sweep.trials=100[/cyan]  continues with the existing trials\n\n"
    "After Ctrl-C or a kill the same command continues where it stopped."
)
def sweep(
    context: typer.Context,
    pipeline: PipelineArgument,
    workers: Annotated[int, typer.Option("--workers", "-w", min=1, metavar="N", help="Processes that run trials.")] = 1,
    sets: SetOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    as_json: JsonOption = False,
    file: FileOption = None,
) -> None:
    """Search better values for a pipeline with a `sweep:` block, run the best ones, and compare them with the pipeline's own."""
    detail = _detail(quiet, verbose)
    path = _file(context, file)
    spec = pipelines_file.one(path, pipeline, sets)
    if spec.sweep is None:
        raise UserError(
            f"{path}: {spec.name} has no `sweep:` block, which says what to search: expected sweep.parameters and a budget"
        )
    home = environment.home_of(path)
    environment.prepare(home, quiet=detail < Detail.VERBOSE)
    with launch.interruptible():
        result = launch.with_prefect(spec, home, list(STAGES), "flows.sweep", lambda flows: flows.sweep(spec, workers))
    if as_json:
        console.print_json(result)
    else:
        from flows import report

        report.show_sweep(result, detail)


@command(
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
    """Show for each stage whether it is up to date or would run, and why. Nothing runs."""
    from metaopt_core.pipeline.repetitions import named, repeats

    path = _file(context, file)
    selected = planning.select(only, first, last)
    spec = pipelines_file.to_run(path, pipeline, sets, register)
    home = environment.home_of(path)
    plans = {named(spec, one): planning.plan(environment.execution(one, home), selected, force) for one in repeats(spec)}
    if as_json:
        entries = [plan.as_json() | ({"of": which} if which else {}) for which, each in plans.items() for plan in each]
        console.print_json({"pipeline": spec.name, "home": str(home.root), "stages": entries})
        return
    width = max(map(len, STAGES))
    for which, each in plans.items():
        for plan in each:
            start = f"{which}{'  ' if which else ''}{plan.stage:<{width}}  "
            first, *more = planning.for_people(plan.reasons) if plan.runs else ("",)
            print(_wrapped(start, plan.status + (f": {first}" if first else "")))
            for reason in more:
                print(_wrapped(" " * len(start), reason))


@command("list", epilog="[bold]Example[/bold]\n\n[cyan]metaopt list -f experiments/pipelines.yaml --json[/cyan]")
def list_(context: typer.Context, as_json: JsonOption = False, file: FileOption = None) -> None:
    """List the pipelines of the file, and of those that it includes."""
    path = _file(context, file)
    specs = pipelines_file.load(path)
    if as_json:
        console.print_json(
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
        schedule = f" [{pipelines_file.when(spec.schedule)}]" if spec.schedule else ""
        origin = f" ({specs.included[spec.name]})" if spec.name in specs.included else ""
        print(_wrapped(f"{spec.name:<{width}}  ", f"{spec.description}{schedule}{origin}"))


@command(
    epilog="[bold]Examples[/bold]\n\n"
    "[cyan]metaopt show sinusoid-quick[/cyan]\n\n"
    "[cyan]metaopt show sinusoid-quick --set train.algorithm=fomaml > mine.yaml[/cyan]  a pipelines file of its own"
)
def show(context: typer.Context, pipeline: PipelineArgument, sets: SetOption = None, file: FileOption = None) -> None:
    """Print a pipeline as YAML, with `extends` resolved and all defaults filled in."""
    from metaopt_core.spec.as_yaml import spec_yaml

    print(spec_yaml(pipelines_file.one(_file(context, file), pipeline, sets)), end="")


@command(
    epilog="[bold]Examples[/bold]\n\n"
    "[cyan]metaopt runs[/cyan]\n\n"
    "[cyan]metaopt runs sinusoid-quick[/cyan]\n\n"
    "A run is listed once its last stage is done. --force replaces its outputs; MLflow keeps both."
)
def runs(
    context: typer.Context,
    pipeline: Annotated[
        str | None,
        typer.Argument(metavar="PIPELINE", help="Only runs of this one.", show_default=False, autocompletion=complete.pipelines),
    ] = None,
    as_json: JsonOption = False,
    file: FileOption = None,
) -> None:
    """List past runs with their results, and the settings in which those of a pipeline differ."""
    from flows import past

    past.show(environment.home_of(_file(context, file)), pipeline, as_json)


@command(
    epilog="[bold]Examples[/bold]\n\n"
    "[cyan]metaopt compare sinusoid-quick sinusoid-metasgd[/cyan]  the newest run of each\n\n"
    "[cyan]metaopt compare 605aec4a 181125e9[/cyan]  two runs by their ids, which `metaopt runs` shows\n\n"
    "Runs on the same meta-test tasks are compared task by task."
)
def compare(
    context: typer.Context,
    chosen: Annotated[
        list[str],
        typer.Argument(metavar="RUN", help="A run's id or the beginning of it, or a pipeline.", autocompletion=complete.runs),
    ],
    as_json: JsonOption = False,
    file: FileOption = None,
) -> None:
    """Show the settings and the results of two or more past runs side by side."""
    from flows import past

    past.compare(environment.home_of(_file(context, file)), chosen, as_json)


@command(epilog="[bold]Example[/bold]\n\n[cyan]metaopt schema > pipelines.schema.json[/cyan]")
def schema() -> None:
    """Print the JSON Schema of a pipelines file, with which editors complete and check it."""
    from metaopt_core.spec.schema import file_schema

    print(json.dumps(file_schema(), indent=2, ensure_ascii=False))


@command(
    epilog="[bold]Examples[/bold]\n\n"
    "[cyan]metaopt up[/cyan]  in one terminal, then here:\n\n"
    "[cyan]metaopt serve[/cyan]  every pipeline with a schedule\n\n"
    "[cyan]metaopt serve sinusoid-quick[/cyan]  this one, on its schedule or, if it has none, on demand from Prefect's pages\n\n"
    "Pipelines are served as they are in the file now: restart after a change."
)
def serve(
    context: typer.Context,
    pipelines: Annotated[
        list[str] | None, typer.Argument(metavar="PIPELINE", help="What to serve.", show_default="all that have a schedule")
    ] = None,
    file: FileOption = None,
) -> None:
    """Run pipelines on their schedules, and stages on demand, one run at a time, for a running Prefect server."""
    path = _file(context, file)
    specs = pipelines_file.load(path)
    scheduled = [
        spec for spec in specs.values() if spec.schedule and spec.name not in specs.included
    ]  # those of an included file are served by serving that file
    chosen = [pipelines_file.named(specs, name, path) for name in pipelines] if pipelines else scheduled
    if not chosen:
        raise UserError(
            f"{path}: no pipeline has a schedule; give one `schedule:`, or name what to serve: metaopt serve {next(iter(specs))}"
        )
    home = environment.home_of(path)
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
        console.say(f"serving {spec.name}: {pipelines_file.when(spec.schedule) if spec.schedule else 'on demand'}")
    console.say(f"Prefect: {api.address.removesuffix('/api')}. Ctrl-C stops serving.")
    from flows.deployments import serve as serve_until_stopped

    serve_until_stopped(chosen, api.address)


@command(
    epilog="[bold]Examples[/bold]\n\n"
    "[cyan]metaopt up[/cyan]\n\n"
    "[cyan]metaopt up --prefect-port 4300 --mlflow-port 5100[/cyan]\n\n"
    "[cyan]metaopt up --password[/cyan]  on a machine that several people use\n\n"
    "[cyan]metaopt up --host 0.0.0.0[/cyan]  reachable from other machines, with a password"
)
def up(
    context: typer.Context,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; beyond this machine a password is required.")
    ] = "127.0.0.1",
    prefect_port: Annotated[int, typer.Option("--prefect-port", min=1, max=65535)] = 4200,
    mlflow_port: Annotated[int, typer.Option("--mlflow-port", min=1, max=65535)] = 5000,
    password: Annotated[
        bool, typer.Option("--password", help="Ask for a password, which is kept in the file `login` of the home.")
    ] = False,
    file: FileOption = None,
) -> None:
    """Start Prefect's and MLflow's servers on the recorded data; Ctrl-C stops them."""
    home = environment.home_of(_file(context, file))
    environment.prepare(home, quiet=False)
    from flows import servers

    servers.up(home, host, prefect_port, mlflow_port, password)


def main() -> None:
    """Entry point: a user's mistake ends in one plain message and exit status 2; an unexpected exception keeps its traceback."""
    try:
        app(prog_name="metaopt")
    except UnicodeEncodeError as error:
        print(f"standard output takes {error.encoding} only: PYTHONIOENCODING=utf-8 changes that", file=sys.stderr)
        sys.exit(2)
    except Exception as error:
        said = full_disk.explanation(error) or (str(error) if isinstance(error, UserError) else None)
        if said is None:
            raise
        print(scrubbed(said), file=sys.stderr)
        sys.exit(2)


# --- shared by the commands --------------------------------------------------------------------------------------------


def _file(context: typer.Context, file: Path | None) -> Path:
    """The pipelines file: `-f` after the command, else before it, else the default."""
    return file or context.obj or pipelines_file.DEFAULT


def _detail(quiet: bool, verbose: bool) -> Detail:
    """Show as much in this process as the two options say."""
    if quiet and verbose:
        raise UserError("--quiet and --verbose: give one or the other")
    detail = Detail.QUIET if quiet else Detail.VERBOSE if verbose else Detail.NORMAL
    console.show(detail)
    return detail


def _outputs(plans: "Iterable[StagePlan]") -> "dict[str, StageOutput]":
    return {plan.stage: plan.output for plan in plans if plan.output is not None}


def _wrapped(first: str, text: str) -> str:
    """A line that begins with `first` and continues below `text`, if a terminal would break it."""
    if not sys.stdout.isatty():
        return f"{first}{text}"
    width = max(40, shutil.get_terminal_size().columns)
    return textwrap.fill(text, width, initial_indent=first, subsequent_indent=" " * len(first), break_long_words=False)
