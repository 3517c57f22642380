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
from metaopt_core.evaluation import over_seeds as merged
from metaopt_core.evaluation.summary import Measure, counted, difference
from metaopt_core.pipeline.store import StageOutput
from metaopt_core.spec.evaluate import IN_DISTRIBUTION

_LARGE = 1000.0  # from here on numbers have an exponent: adaptation that diverges makes any size
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
    return merged.summarize(summaries) if len(summaries) == len(executions) else None


def show(executions: Sequence[Mapping[str, StageOutput]], home: Path) -> None:
    """Print the results table, the figures, the MLflow runs and how to browse it all: of one execution, or of one a seed."""
    console = Console(highlight=False, soft_wrap=True)
    if results := over_seeds(executions):
        console.print(*tables(results), sep="\n")
        if results["shifted"]:
            console.print(shifted_table(results))
    for outputs in executions:
        for path in figures(outputs):
            console.print(f"figure  {path}")
        if "log" in outputs:
            console.print(f"report  {outputs['log'] / 'report.html'}")
            console.print(f"MLflow  run {outputs['log'].extra.get('run_id')}")
    console.print(f"Everything lies in {home}. To browse it: {environment.command('up')}")


def show_sweep(result: Mapping[str, Any], home: Path) -> None:
    """Print what a sweep has found: the best values, how they do on the meta-test tasks, and where everything is."""
    console = Console(highlight=False, soft_wrap=True)
    best, default, metric, form = result["best"], result["default"], result["metric"], result["form"]
    console.print(f"best of {result['trials']} trials ({result['pruned']} of them given up early): trial {best['trial']}")
    for key, value in best["values"].items():
        console.print(f"  {key}  {json.dumps(value)}")
    console.print(f"{metric} on the meta-test tasks, mean ± 95 % interval")
    console.print(f"  best        {_mean(form, best['test'])} after {counted(best['steps'], 'step')}")
    console.print(f"  default     {_mean(form, default['test'])} after {counted(default['steps'], 'step')}")
    if result["difference"] is None:
        console.print("  difference  not known: the two have different meta-test tasks")
    else:
        console.print(f"  difference  {_mean(form, result['difference'])} (best − default, paired on the same tasks)")
    for path in result["figures"]:
        console.print(f"figure  {path}")
    console.print(f"study   {result['study']} in {result['storage']}")
    file = shlex.quote(os.path.relpath(best["spec"]))
    console.print(f"spec    {best['spec']}, to be run with: {environment.program()} run {best['pipeline']} -f {file}")
    console.print(f"Everything lies in {home}. To browse it: {environment.command('up')}")


def tables(results: Mapping[str, Any]) -> list[Table]:
    """By number of adaptation steps the methods that take any, side by side; then all methods where they are compared."""
    measure = Measure(results)
    key, title = measure.key, measure.name.capitalize()
    return [_by_step(results, key, title), _compared(results, key, title)]


def _table(title: str, caption: str = "") -> Table:
    return Table(
        title=title,
        caption=caption or None,
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),  # fits into 80 columns
        pad_edge=False,
        title_style="bold",
        caption_style="dim",
    )


def _by_step(results: Mapping[str, Any], key: str, title: str) -> Table:
    methods = [method for method in results["methods"].values() if method["takes_steps"]]
    last = len(methods[0]["steps"]) - 1
    table = _table(f"{title} by number of adaptation steps")
    for heading in ("steps", *(method["label"] for method in methods)):
        table.add_column(heading, justify="right", no_wrap=True)
    for step in sorted({step for step in _STEPS_SHOWN if step < last} | {last, results["horizon"]}):
        table.add_row(str(step), *(_mean(key, method["steps"][step][key]) for method in methods))
    return table


def _compared(results: Mapping[str, Any], key: str, title: str) -> Table:
    methods, horizon = results["methods"], results["horizon"]
    of = methods[results["model"]]
    diverged = any(step["diverged"] for method in methods.values() for step in method["steps"])
    kind = f"{results['ways']}-way {results['shots']}-shot" if results["ways"] else f"{results['shots']}-shot"
    count = results.get("seeds", 1)
    interval = f"mean ± 95 % interval over {count} seeds" if count > 1 else "mean ± 95 % interval"
    notes = [f"{results['tasks']} meta-test tasks, {kind}", interval]
    alone = " (each query without the others: inductive)" if of["inductive"] else ""
    notes += [f"{results['normalization']}{alone}"] if results["normalization"] else []
    notes += [f"{of['label']} by statistics collected for the step: {_mean(key, of['collected'][key])}"] if of["collected"] else []
    notes += [f"{results['algorithm']}'s step sizes learned, {results['learned_lr']}"] if results["learned_lr"] else []
    notes += ["div.: diverged tasks" if diverged else "no task diverged"]
    table = _table(f"{title} after {counted(horizon, 'step')}", "; ".join(notes))
    table.add_column("", no_wrap=True)
    columns = ["step\nsize", title.lower() if results["ways"] else "mean"] + ([] if results["ways"] else ["median"])
    columns += ["worst\n10 %", "im-\nproved"] + (["inductive"] if of["inductive"] else []) + (["div."] if diverged else [])
    for column in [*columns, f"{of['label']}\nminus it"]:
        table.add_column(column, justify="right", no_wrap=True)
    for name, method in methods.items():
        entry = method["steps"][horizon]
        row = [f"{method['inner_lr']:g}" if method["inner_lr"] else "-", _mean(key, entry[key])]
        row += [] if results["ways"] else [_number(key, entry[key]["median"])]
        row += [_number(key, entry[key]["worst"])]
        row += [f"{entry['improved']:.1%}" if method["takes_steps"] else "-"]
        row += [_mean(key, method["inductive"][key])] if of["inductive"] else []
        row += [str(entry["diverged"])] if diverged else []
        paired = difference(results, results["model"], name, key)
        table.add_row(method["label"], *row, _mean(key, paired, "+") if paired else "")
    return table


def shifted_table(results: Mapping[str, Any]) -> Table:
    """The test tasks as trained for and each shifted variant: every method at the horizon, and the change in percent."""
    read = Measure(results)
    measure, title = read.key, read.name.capitalize()
    caption = f"Δ: change of the mean against {IN_DISTRIBUTION}; div.: diverged tasks, of {results['tasks']}"
    table = _table(f"{title} on shifted test tasks, after {counted(results['horizon'], 'adaptation step')}", caption)
    for heading in ("test tasks", "method"):
        table.add_column(heading, no_wrap=True)
    for heading in ("mean ± 95 %", "Δ", "median", "div."):
        table.add_column(heading, justify="right", no_wrap=True, style="dim" if heading == "Δ" else None)
    for variant, tested in {IN_DISTRIBUTION: results, **results["shifted"]}.items():
        for place, method in enumerate(tested["methods"].values()):
            entry, change = method["steps"][results["horizon"]], method.get("change", {"mean": None})["mean"]
            values = [_mean(measure, entry[measure]), "" if change is None else _percent(change)]
            values += [_number(measure, entry[measure]["median"]), str(entry["diverged"])]
            table.add_row("" if place else variant, method["label"], *values, end_section=place == len(tested["methods"]) - 1)
    return table


def _mean(measure: str, values: Mapping[str, float | None], sign: str = "") -> str:
    if values["mean"] is None:
        return "-"  # not finite, because tasks diverged: their number stands beside it
    return f"{_number(measure, values['mean'], sign)} ± {_number(measure, values['ci95'])}"


def _number(measure: str, value: float | None, sign: str = "") -> str:
    if value is None:
        return "-"
    if measure == "percent":
        return f"{value:{sign}.1%}"
    return f"{value:{sign}.3f}" if abs(value) < _LARGE else f"{value:{sign}.1e}"


def _percent(change: float) -> str:
    return f"{change:+.0%}" if change < _LARGE else f"{100 * change:+.0e}%"
