"""What `metaopt run` and `metaopt sweep` show at the end, or print for programs with `--json`."""

import json
import os
import shlex
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from flows import environment
from flows.console import Detail
from metaopt_core.pipeline.home import Home
from metaopt_core.pipeline.repetitions import record
from metaopt_core.pipeline.store import StageOutput
from metaopt_core.reporting import tables, tables_by_shots, terminal
from metaopt_core.reporting.numbers import Reading, counted, settings
from metaopt_core.reporting.words import in_short
from metaopt_core.spec.pipeline import PipelineSpec

if TYPE_CHECKING:
    from flows.planning import StagePlan

_WIDTH = 120  # if no terminal says how wide it is

Outputs = Mapping[str, StageOutput]


def console() -> Console:
    """Standard output, as wide as the terminal."""
    made = Console(highlight=False)
    return made if made.is_terminal or "COLUMNS" in os.environ else Console(highlight=False, width=_WIDTH)


def show(
    home: Home,
    spec: PipelineSpec,
    executions: Mapping[str, Outputs],
    stages: Collection[str],
    detail: Detail,
    traces: Path | None = None,
) -> None:
    """Print what stages have made: tables, the verdict, and where to find more.

    executions: by repetition, whose name is empty if there is only one. traces: a folder with profiles of training.
    """
    shown = console()
    results = over_repetitions(spec, list(executions.values())) if "evaluate" in stages else None
    if results and detail > Detail.QUIET:
        _show_tables(shown, results, detail)
    if results:
        terminal.say(shown, in_short(results))
    if detail > Detail.QUIET:
        shown.print()
    for name, text in _places(home, spec, executions, stages, detail):
        shown.print(f"{name:<8} ", _linked(text), sep="", soft_wrap=True)
    if traces:
        shown.print(f"traces   {traces}, a file for each phase of training: drop one on https://ui.perfetto.dev", soft_wrap=True)


def _show_tables(shown: Console, results: Mapping[str, Any], detail: Detail) -> None:
    everything = detail == Detail.VERBOSE
    by_shots = tables_by_shots.error(results)
    if everything or by_shots is None:
        terminal.show(shown, tables.by_step(results, None if everything else tables.steps_shown(results)))
    terminal.show(shown, tables.compared(results))
    if by_shots:
        terminal.show(shown, by_shots)
    if everything and (others := tables.other_metrics(results)):
        terminal.show(shown, others)
    if results["shifted"]:
        terminal.show(shown, tables.shifted(results) if everything else tables.shifted_in_short(results))


def _places(
    home: Home, spec: PipelineSpec, executions: Mapping[str, Outputs], stages: Collection[str], detail: Detail
) -> list[tuple[str, str]]:
    """Where to look at what the stages have made, the most interesting last."""
    found: list[tuple[str, str]] = []
    for which, outputs in executions.items():
        of = f" ({which})" if which else ""
        if detail == Detail.VERBOSE:
            found += [("figure", f"{path}{of}") for path in figures({name: outputs[name] for name in outputs if name in stages})]
        elif detail == Detail.NORMAL and not which and (folder := _folder_of_figures(outputs, stages)):
            found.append(("figures", folder))
        if "log" in outputs and "log" in stages:
            everything = detail == Detail.VERBOSE or (detail == Detail.NORMAL and not which)
            found += [("MLflow", f"{_run(home, outputs['log'].extra)}{of}")] if everything else []
            found.append(("report", f"{outputs['log'] / 'report.html'}{of}"))
    file = record(home, spec)
    if len(executions) > 1 and "log" in stages and file.exists():
        over = " (over all)"
        extra = json.loads(file.read_text()).get("mlflow")
        found += [("MLflow", f"{_run(home, extra)}{over}")] if extra and detail > Detail.QUIET else []
        found.append(("report", f"{file.with_suffix('.html')}{over}"))
    return found


def _folder_of_figures(outputs: Outputs, stages: Collection[str]) -> str | None:
    """The folder of the last stage that has figures."""
    folders = [output.folder for stage, output in outputs.items() if stage in stages and any(Path(output.folder).glob("*.png"))]
    return folders[-1] if folders else None


def _run(home: Home, extra: Mapping[str, Any]) -> str:
    """The address of an MLflow run, or how to show it."""
    from metaopt_core.tracking.links import links

    return links(home, extra)["url"] or f"run {extra['run_id']}: {environment.command('up')} shows it"


def _linked(text: str) -> Text:
    """A path that a terminal opens on a click."""
    path = Path(text.partition(" (")[0])
    return Text(text, style=f"link {path.as_uri()}") if path.is_absolute() else Text(text)


def summary(outputs: Outputs) -> dict[str, Any] | None:
    """The results of `evaluate`, if there are any."""
    if "evaluate" not in outputs:
        return None
    found: dict[str, Any] = json.loads((outputs["evaluate"] / "summary.json").read_text())
    return found


def figures(outputs: Outputs) -> list[str]:
    return [str(path) for output in outputs.values() for path in sorted(Path(output.folder).glob("*.png"))]


def over_repetitions(spec: PipelineSpec, executions: Sequence[Outputs]) -> dict[str, Any] | None:
    """The results over all repetitions, once all are there; for a single execution its own."""
    if len(executions) == 1:
        return summary(executions[0])
    from metaopt_core.evaluation import over_repetitions as merged

    summaries = [found for outputs in executions if (found := summary(outputs))]
    whole = len(summaries) == len(executions)
    return merged.summarize(summaries, "split" if spec.splits > 1 else "seed") if whole else None


def as_json(
    home: Home, spec: PipelineSpec, plans: "Mapping[str, Sequence[StagePlan]]", executions: Mapping[str, Outputs]
) -> dict[str, Any]:
    """The same for programs: one execution, or one for each repetition with the results over all."""
    each = {which: _execution(home, plans[which], outputs) for which, outputs in executions.items()}
    if spec.repetitions == 1:
        return next(iter(each.values()))
    file = record(home, spec)
    together = json.loads(file.read_text()).get("mlflow") if file.exists() else None
    return {
        "repetitions": [{"of": which} | execution for which, execution in each.items()],
        "results": over_repetitions(spec, list(executions.values())),
        "mlflow": together and together | _links(home, together),
    }


def _execution(home: Home, plans: "Sequence[StagePlan]", outputs: Outputs) -> dict[str, Any]:
    stages = []
    for plan in plans:
        output = outputs.get(plan.stage)
        made = {"seconds": output.seconds, "folder": output.folder} if output else {"seconds": None, "folder": None}
        stages.append(plan.as_json() | {"status": "ran" if plan.runs else plan.status} | made)
    extra = outputs["log"].extra if "log" in outputs else None
    return {
        "stages": stages,
        "results": summary(outputs),
        "figures": figures(outputs),
        "mlflow": extra and extra | _links(home, extra),
    }


def _links(home: Home, extra: Mapping[str, Any]) -> dict[str, str | None]:
    from metaopt_core.tracking.links import links

    return links(home, extra)


def show_sweep(result: Mapping[str, Any], detail: Detail) -> None:
    """Print what a sweep has found: the best values, their result on the meta-test tasks, and where to find more."""
    shown = console()
    best, default, metric = result["best"], result["default"], result["metric"]
    reading = Reading({"primary": metric, "metrics": result["metrics"], "methods": {}, "shifted": {}})
    pruned = f" ({result['pruned']} of them pruned)" if result["pruned"] else ""
    shown.print(f"Best of {counted(result['trials'], 'trial')}{pruned}: trial {best['trial']}")
    for key, value in best["values"].items():
        shown.print(f"  {key}  {settings({'': value}).strip()}")
    shown.print()
    shown.print(f"{reading.heading} on the meta-test tasks, mean ± 95% interval")
    shown.print(f"  best        {reading.interval(best['test'])} after {counted(best['steps'], 'step')}")
    shown.print(f"  default     {reading.interval(default['test'])} after {counted(default['steps'], 'step')}")
    if result["difference"] is None:
        shown.print("  difference  not known: the two have different meta-test tasks")
    else:
        unit = " percentage points" if reading.percent else ""
        shown.print(f"  difference  {reading.difference(result['difference'])}{unit} (best − default, task by task)")
    shown.print()
    file = shlex.quote(os.path.relpath(best["spec"]))
    places = [("run it", f"{environment.program()} run {best['pipeline']} -f {file}")]
    if detail > Detail.QUIET:
        places += [("study", f"{result['study']} in {result['storage']}")]
    if detail == Detail.VERBOSE:
        places += [("figure", path) for path in result["figures"]]
    for name, text in [*places, ("report", result["report"])]:
        shown.print(f"{name:<8} ", _linked(text), sep="", soft_wrap=True)
