"""The result of a pipeline in a few sentences, as texts with a tone, for the terminal, Markdown and HTML."""

from collections.abc import Sequence

from metaopt_core.evaluation.recommendation import MANY_HARMED
from metaopt_core.evaluation.verdict import Summary, difference, verdict
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
    steps = summary["methods"][found.model]["takes_steps"]
    on = f"After {counted(summary['horizon'], 'adaptation step')} on" if steps else "From"
    parts = [
        Cell(f"{on} {examples}, {model if steps else _the(model)} reaches a {title} of "),
        Cell(reading.interval(found.entry[reading.name]), tone="strong"),
        Cell(f"{over}."),
    ]
    if found.entry["diverged"]:
        parts += [Cell(" "), Cell(f"{counted(found.entry['diverged'], 'task')} diverged.", tone="bad")]
    if summary.get("recommendation"):
        return (*parts, *_choice(summary, reading), Cell(" "), *recommendation(summary))
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


def recommendation(summary: Summary) -> tuple[Cell, ...]:
    """What to use, and what it follows from."""
    reading, found = Reading(summary), summary["recommendation"]
    label = {name: method["label"] for name, method in summary["methods"].items()}
    use, largest = Cell(f"Use {_the(label[found['use']])}: ", tone="strong"), found["largest"]
    number = f"{reading.difference(largest)}{_points(reading)}"
    with_most = f"with {counted(largest['shots'], 'example')}"
    if found["because"] == "better":
        better = f"with {_numbers(found['better_with'])} it is better than the best baseline, {_the(label[found['against']])}"
        said = [Cell(better, tone="good"), Cell(f" (largest difference {number}, {with_most})")]
        said += [Cell(f", and worse with {_numbers(found['worse_with'])}", tone="bad")] if found["worse_with"] else []
        return (use, *said, Cell("."), *_harmed(summary, found["use"], found["harmed"]))
    learner = label[found["against"]]
    if found["because"] in ("harms", "worse"):
        said = [Cell("meta-learning harms here. ", tone="bad")] if found["because"] == "harms" else []
        capital = "The" if said else "the"
        said.append(
            Cell(f"{capital} best meta-learner, {learner}, is worse by more than its interval (at best {number}, {with_most}).")
        )
        return (use, *said, *_harmed(summary, found["against"], found["harmed"]))
    most = f"{number}, {label[largest['method']]} {with_most}"
    said = [Cell(f"no meta-learner is better by more than its interval (largest difference {most}).")]
    return (use, *said, *_harmed(summary, found["against"], found["harmed"]))


def _choice(summary: Summary, reading: Reading) -> tuple[Cell, ...]:
    """How the choice on meta-validation tasks does on the test tasks, if there was one."""
    if not summary.get("chosen") or "over_shots" not in summary:
        return ()
    over, methods, chosen = summary["over_shots"], summary["methods"], summary["chosen"]["method"]
    means = {name: values[reading.name]["mean"] for name, values in over["methods"].items()}
    known = {name: mean for name, mean in means.items() if mean is not None and name != chosen}
    said = f" {_the(methods[chosen]['label'], capital=True)} was chosen on the meta-validation tasks"
    if not known or means[chosen] is None:
        return (Cell(f"{said}."),)
    best = (max if reading.larger_is_better else min)(known, key=lambda name: known[name])
    if means[chosen] == known[best] or (means[chosen] > known[best]) == reading.larger_is_better:
        return (Cell(f"{said}, and is the best on the test tasks, too."),)
    paired = difference({"differences": over["differences"]}, chosen, best, reading.name)
    number = f"{reading.difference(paired)}{_points(reading)}"
    return (Cell(f"{said}; on the test tasks the best is {_the(methods[best]['label'])}, from which it differs by {number}."),)


def _harmed(summary: Summary, method: str, share: float | None) -> tuple[Cell, ...]:
    if share is None or share < MANY_HARMED:
        return ()
    reference = next(result["label"] for result in summary["methods"].values() if result.get("reference"))
    said = f" On {share:.0%} of the tasks {summary['methods'][method]['label']} is worse than the {reference}."
    return (Cell(said, tone="bad"),)


def _the(label: str, capital: bool = False) -> str:
    """With an article, if it is no name."""
    article = "The" if capital else "the"
    return f"{article} {label}" if label[:1].islower() else label


def _points(reading: Reading) -> str:
    return " percentage points" if reading.percent else ""


def _numbers(shots: Sequence[int]) -> str:
    """`5, 10 and 20 examples`."""
    *most, last = map(str, shots)
    return f"{', '.join(most)} and {last} examples" if most else counted(shots[0], "example")
