"""The result of a pipeline in a few sentences, as texts with a tone, for the terminal, Markdown and HTML."""

from metaopt_core.evaluation.verdict import Summary, verdict
from metaopt_core.reporting.numbers import Reading, counted
from metaopt_core.reporting.table import Cell


def in_short(summary: Summary) -> tuple[Cell, ...]:
    """What the logged model reaches on new tasks, and whether that is better than the best baseline."""
    reading, found = Reading(summary), verdict(summary)
    model = summary["methods"][found.model]["label"]
    title = reading.title if reading.title.startswith("mean ") else f"mean {reading.title}"
    examples = counted(summary["shots"], "example") + (" of each class" if summary["ways"] else "")
    over = f" over {counted(summary['tasks'], 'new task')}"
    repetitions = summary.get("repetitions")
    if repetitions:
        over += f" and {counted(repetitions['count'], repetitions['kind'])}"
    parts = [
        Cell(f"After {counted(summary['horizon'], 'adaptation step')} on {examples}, {model} reaches a {title} of "),
        Cell(reading.interval(found.entry[reading.name]), tone="strong"),
        Cell(f"{over}."),
    ]
    if found.entry["diverged"]:
        parts += [Cell(" "), Cell(f"{counted(found.entry['diverged'], 'task')} diverged.", tone="bad")]
    if found.baseline is None or found.of_baseline is None:
        return tuple(parts)
    baseline = summary["methods"][found.baseline]["label"]
    parts.append(Cell(f" The best baseline, {baseline}, reaches {reading.interval(found.of_baseline[reading.name])}. "))
    each = repetitions["kind"] if repetitions else "task"
    parts.append(Cell(f"{each.capitalize()} by {each}, {model} is "))
    if found.outcome == "unclear":
        parts.append(Cell("neither better nor worse by more than chance", tone="strong"))
    else:
        parts.append(Cell(found.outcome, tone="good" if found.outcome == "better" else "bad"))
    unit = " percentage points" if reading.percent else ""
    return (*parts, Cell(f": paired difference {reading.difference(found.paired)}{unit}."))
