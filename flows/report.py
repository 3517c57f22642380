"""What `metaopt run` shows at its end, and prints for programs with `--json`."""

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from flows import environment
from metaopt_core import seeds
from metaopt_core.store import StageOutput

_STEPS_SHOWN = (0, 1, 2, 3, 5, 10, 20, 50, 100)


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
    return seeds.summarize(summaries) if len(summaries) == len(executions) else None


def show(executions: Sequence[Mapping[str, StageOutput]], home: Path) -> None:
    """Print the results table, the figures, the MLflow runs and how to browse it all: of one execution, or of one a seed."""
    console = Console(highlight=False, soft_wrap=True)
    if results := over_seeds(executions):
        console.print(*tables(results), sep="\n")
    for outputs in executions:
        for path in figures(outputs):
            console.print(f"figure  {path}")
        if "log" in outputs:
            console.print(f"MLflow  run {outputs['log'].extra.get('run_id')}")
    console.print(f"Everything lies in {home}. To browse it: {environment.command('up')}")


def show_sweep(result: Mapping[str, Any], home: Path) -> None:
    """Print what a sweep has found: the best values, how they do on the meta-test tasks, and where everything is."""
    console = Console(highlight=False, soft_wrap=True)
    best, default, metric = result["best"], result["default"], result["metric"]
    console.print(f"best of {result['trials']} trials ({result['pruned']} of them given up early): trial {best['trial']}")
    for key, value in best["values"].items():
        console.print(f"  {key}  {json.dumps(value)}")
    console.print(f"{metric} on the meta-test tasks, mean ± 95 % interval")
    console.print(f"  best        {_mean(metric, best['test'])} after {best['steps']} steps")
    console.print(f"  default     {_mean(metric, default['test'])} after {default['steps']} steps")
    if result["difference"] is None:
        console.print("  difference  not known: the two have different meta-test tasks")
    else:
        console.print(f"  difference  {_mean(metric, result['difference'])} (best − default, paired on the same tasks)")
    for path in result["figures"]:
        console.print(f"figure  {path}")
    console.print(f"study   {result['study']} in {result['storage']}")
    file = shlex.quote(os.path.relpath(best["spec"]))
    console.print(f"spec    {best['spec']}, to be run with: {environment.program()} run {best['pipeline']} -f {file}")
    console.print(f"Everything lies in {home}. To browse it: {environment.command('up')}")


def tables(results: Mapping[str, Any]) -> list[Table]:
    """One table a measure: a row for each number of adaptation steps, the columns of each method side by side."""
    methods = results["methods"]
    horizon = len(next(iter(methods.values()))["steps"]) - 1
    shown = sorted({step for step in _STEPS_SHOWN if step < horizon} | {horizon})
    measures = {"loss": {"mse": "Mean squared error", "cross_entropy": "Cross-entropy"}[results["metric"]]}
    if any(step["accuracy"] for method in methods.values() for step in method["steps"]):
        measures = {"accuracy": "Accuracy"} | measures
    return [_table(results, measure, title, shown) for measure, title in measures.items()]


def _table(results: Mapping[str, Any], measure: str, title: str, shown: list[int]) -> Table:
    methods = list(results["methods"].values())
    diverged = any(step["diverged"] for method in methods for step in method["steps"])
    kind = f"{results['ways']}-way {results['shots']}-shot" if results["ways"] else f"{results['shots']}-shot"
    count = results.get("seeds", 1)
    interval = f"mean ± 95 % interval over {count} seeds" if count > 1 else "mean ± 95 % interval"
    notes = [f"{results['tasks']} meta-test tasks, {kind}", interval]
    notes += [results["normalization"]] if results["normalization"] else []
    notes += [f"MAML's step sizes learned, {results['learned_lr']}"] if results["learned_lr"] else []
    notes += ["div.: diverged tasks" if diverged else "no task diverged"]
    table = Table(
        title=f"{title} by number of adaptation steps",
        caption="; ".join(notes),
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),  # fits into 80 columns
        pad_edge=False,
        title_style="bold",
        caption_style="dim",
    )
    table.add_column("steps", justify="right")
    for method in methods:
        table.add_column(method["label"], justify="right", no_wrap=True)
        table.add_column("median", justify="right", style="dim")
        if diverged:
            table.add_column("div.", justify="right")
    for step in shown:
        row = [str(step)]
        for method in methods:
            entry = method["steps"][step]
            values = entry[measure] or {"mean": None, "ci95": None, "median": None}
            row += [_mean(measure, values), _number(measure, values["median"])]
            row += [str(entry["diverged"])] if diverged else []
        table.add_row(*row)
    return table


def _mean(measure: str, values: Mapping[str, float | None]) -> str:
    if values["mean"] is None:
        return "-"  # not finite, because tasks diverged: their number stands beside it
    return f"{_number(measure, values['mean'])} ± {_number(measure, values['ci95'])}"


def _number(measure: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1%}" if measure == "accuracy" else f"{value:.3f}"
