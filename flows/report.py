"""What `metaopt run` and `metaopt sweep` show at their end."""

import json
import os
import shlex
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from flows import environment
from metaopt_core.evaluation import over_seeds as merged
from metaopt_core.pipeline.store import StageOutput
from metaopt_core.reporting import tables, terminal
from metaopt_core.reporting.numbers import Reading, counted
from metaopt_core.reporting.words import in_short

_WIDTH = 120  # where no terminal says how wide it is


def console() -> Console:
    """Standard output: as wide as the terminal, and without a limit for paths."""
    made = Console(highlight=False)
    return made if made.is_terminal or "COLUMNS" in os.environ else Console(highlight=False, width=_WIDTH)


def summary(outputs: Mapping[str, StageOutput]) -> dict[str, Any] | None:
    """The results of `evaluate`, if there are any."""
    if "evaluate" not in outputs:
        return None
    found: dict[str, Any] = json.loads((outputs["evaluate"] / "summary.json").read_text())
    return found


def figures(outputs: Mapping[str, StageOutput]) -> list[str]:
    return [str(path) for output in outputs.values() for path in sorted(Path(output.folder).glob("*.png"))]


def over_seeds(executions: Sequence[Mapping[str, StageOutput]]) -> dict[str, Any] | None:
    """The results of several seeds as one, if all are there; of a single execution its own."""
    if len(executions) == 1:
        return summary(executions[0])
    summaries = [found for outputs in executions if (found := summary(outputs))]
    return merged.summarize(summaries) if len(summaries) == len(executions) else None


def show(executions: Mapping[int, Mapping[str, StageOutput]], stages: Collection[str]) -> None:
    """Print what stages have made, of one execution or of one a seed: tables, the verdict, and where to read on.

    executions: by seed.
    """
    shown = console()
    results = over_seeds(list(executions.values())) if "evaluate" in stages else None
    if results:
        terminal.show(shown, tables.by_step(results, tables.steps_shown(results)))
        terminal.show(shown, tables.compared(results))
        if results["shifted"]:
            terminal.show(shown, tables.shifted_in_short(results))
        terminal.say(shown, in_short(results))
        shown.print()
    for seed, outputs in executions.items():
        of_seed = f" (seed {seed})" if len(executions) > 1 else ""
        for name, text in _places(outputs, stages):
            shown.print(f"{name}{of_seed}  {text}", soft_wrap=True)


def _places(outputs: Mapping[str, StageOutput], stages: Collection[str]) -> list[tuple[str, str]]:
    """Where what the stages have made can be looked at."""
    found = []
    for stage in reversed([stage for stage in outputs if stage in stages]):
        if any(Path(outputs[stage].folder).glob("*.png")):
            found.append(("figures", outputs[stage].folder))
            break
    if "log" in outputs and "log" in stages:
        found.append(("MLflow ", f"run {outputs['log'].extra.get('run_id')}"))
        found.append(("report ", str(outputs["log"] / "report.html")))
    return found


def show_sweep(result: Mapping[str, Any], home: Path) -> None:
    """Print what a sweep has found: the best values, how they do on the meta-test tasks, and where everything is."""
    shown = console()
    best, default, metric = result["best"], result["default"], result["metric"]
    reading = Reading({"primary": metric, "metrics": result["metrics"], "methods": {}, "shifted": {}})
    shown.print(f"best of {counted(result['trials'], 'trial')} ({result['pruned']} of them pruned): trial {best['trial']}")
    for key, value in best["values"].items():
        shown.print(f"  {key}  {json.dumps(value)}")
    shown.print(f"{reading.title} on the meta-test tasks, mean ± 95% interval")
    shown.print(f"  best        {reading.interval(best['test'])} after {counted(best['steps'], 'step')}")
    shown.print(f"  default     {reading.interval(default['test'])} after {counted(default['steps'], 'step')}")
    if result["difference"] is None:
        shown.print("  difference  not known: the two have different meta-test tasks")
    else:
        unit = " percentage points" if reading.percent else ""
        shown.print(f"  difference  {reading.difference(result['difference'])}{unit} (best − default, paired on the same tasks)")
    for path in result["figures"]:
        shown.print(f"figure  {path}", soft_wrap=True)
    shown.print(f"study   {result['study']} in {result['storage']}", soft_wrap=True)
    file = shlex.quote(os.path.relpath(best["spec"]))
    command = f"{environment.program()} run {best['pipeline']} -f {file}"
    shown.print(f"spec    {best['spec']}, to be run with: {command}", soft_wrap=True)
    shown.print(f"All outputs are in {home}. To browse them: {environment.command('up')}", soft_wrap=True)
