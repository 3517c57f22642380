"""`python -m benchmarks`: what `make bench` runs."""

import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import report
from benchmarks.check import NotTheSameWorkError
from benchmarks.results import Result
from benchmarks.run import run
from benchmarks.setting import pictures_folder
from benchmarks.workloads import WORKLOADS, Workload
from flows import environment
from metaopt_core.errors import UserError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]})


@app.command()
def bench(
    only: Annotated[str | None, typer.Option(metavar="W1,W3", help="Only these workloads.")] = None,
    seconds: Annotated[float, typer.Option(min=0, help="Seconds of timing for each workload; more give steadier numbers.")] = 30,
    out: Annotated[Path | None, typer.Option(help="Folder for bench.json and bench.png.", show_default=".metaopt/bench")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print only JSON, for programs.")] = False,
    show_list: Annotated[bool, typer.Option("--list", help="Show the workloads and measure nothing.")] = False,
) -> None:
    """Compare metaopt with the libraries that a user would use instead, on the same tasks from the same initial parameters.

    Every contender's meta-gradient is compared first, in float64; if one is off, nothing is timed and the exit status is 1.
    """
    chosen = _chosen(only)
    console = Console(width=None if sys.stdout.isatty() else 140, quiet=as_json)
    if show_list:
        for workload in chosen:
            console.print(f"{workload.id}  {workload.title}")
        return
    warnings.filterwarnings("ignore")  # from the peers, about future versions of PyTorch
    on = report.machine("real" if pictures_folder() else "noise")
    console.print(" · ".join(f"{key} {value}" for key, value in on.items()))
    started = time.monotonic()
    results: list[Result] = []
    with _progress(len(chosen)) as say:
        for workload in chosen:
            results.append(run(workload, seconds, partial(say, len(results), workload.id)))
            report.show(results[-1], console)
    folder = out or environment.current_home().root / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    values = report.as_json(results, on | {"seconds": time.monotonic() - started})
    (folder / "bench.json").write_text(json.dumps(values, indent=1) + "\n")
    report.figure(results, folder / "bench.png")
    if as_json:
        sys.stdout.write(json.dumps(values) + "\n")
    console.print(f"\n{time.monotonic() - started:.0f} s; saved: {folder / 'bench.json'}, {folder / 'bench.png'}")


@contextmanager
def _progress(workloads: int) -> Iterator[Callable[[int, str, str], None]]:
    """A bar on standard error, or one line a measurement without a terminal. Yields a function of (done, workload, words)."""
    console = Console(stderr=True)
    shown = sys.stdout.isatty()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, redirect_stdout=shown, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=workloads)

        def say(done: int, name: str, words: str) -> None:
            progress.update(task, completed=done, description=f"{name}: {words}")
            if not console.is_terminal and "left" not in words:
                sys.stderr.write(f"{name}: {words}\n")

        yield say


def _chosen(only: str | None) -> list[Workload]:
    by_id = {workload.id: workload for workload in WORKLOADS}
    wanted = [name.strip().upper() for name in only.split(",")] if only else list(by_id)
    for name in wanted:
        if name not in by_id:
            raise typer.BadParameter(f"{name!r} is not a workload: expected some of {', '.join(by_id)}", param_hint="--only")
    return [by_id[name] for name in wanted]


def main() -> None:
    try:
        app()
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(1 if isinstance(error, NotTheSameWorkError) else 2)


if __name__ == "__main__":
    main()
