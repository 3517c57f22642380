"""What `metaopt data check` says: the tasks of a pipeline's data, how many of them are large enough, and what may be wrong."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from metaopt_core.distributions.batch import Episode, HeldOutSplit, TaskDistribution
from metaopt_core.distributions.findings import Findings
from metaopt_core.errors import UserError
from metaopt_core.reporting.numbers import counted
from metaopt_core.reporting.table import Table, columns, row
from metaopt_core.spec.pipeline import PipelineSpec


@dataclass(frozen=True)
class Checked:
    """enough: what asks for tasks, in words, split → how many of how many tasks are large enough for it. refusals: what a run would
    stop at."""

    pipeline: str
    findings: Findings
    enough: Sequence[tuple[str, str, int, int]]
    refusals: Sequence[str]

    def as_json(self) -> dict[str, Any]:
        return {
            "pipeline": self.pipeline,
            "facts": dict(self.findings.facts),
            "splits": {split: {"tasks": len(sizes), "rows": sum(sizes)} for split, sizes in self.findings.sizes.items()},
            "enough": [dict(zip(("for", "split", "tasks", "of"), one, strict=True)) for one in self.enough],
            "warnings": list(self.findings.warnings),
            "errors": list(self.refusals),
        }


def check(spec: PipelineSpec, distribution: TaskDistribution) -> Checked:
    """Ask loaded data for what the stages of a pipeline will ask for; nothing is trained."""
    enough, refusals = asked(spec, distribution)
    return Checked(spec.name, distribution.findings(), enough, refusals)


def asked(spec: PipelineSpec, distribution: TaskDistribution) -> tuple[list[tuple[str, str, int, int]], list[str]]:
    """`enough` and `refusals` of `Checked`."""
    train = spec.train
    enough: list[tuple[str, str, int, int]] = []
    refusals: list[str] = []
    trained = Episode(train.ways, train.most_shots, train.queries, train.fewest_shots)
    try:
        distribution.train(trained, 0, 1)
    except UserError as error:
        refusals.append(str(error))
    for what, split, episode in _held_out(spec):
        count = distribution.held_out_count(split)
        try:
            enough.append((what, split, len(distribution.enough(split, episode)), count))
        except UserError as error:
            enough.append((what, split, 0, count))
            refusals.append(str(error))
    return enough, list(dict.fromkeys(refusals))


def _held_out(spec: PipelineSpec) -> Iterator[tuple[str, HeldOutSplit, Episode]]:
    """What asks for held-out tasks, in words."""
    ways, fewest = spec.train.ways, spec.validation_fewest_shots
    shots = f"{fewest} to {spec.validation_shots}" if fewest else f"{spec.validation_shots}"
    queries = counted(spec.validation_queries, "query")
    episode = Episode(ways, spec.validation_shots, spec.validation_queries, fewest)
    yield f"validation: {shots} examples, {queries}", "validation", episode
    for number in spec.evaluated_shots:
        what = f"evaluation: {counted(number, 'example')}, {counted(spec.evaluate_queries, 'query')}"
        asked = Episode(ways, number, spec.evaluate_queries)
        yield what, "test", asked
        yield f"choosing for {counted(number, 'example')}, {counted(spec.evaluate_queries, 'query')}", "validation", asked


def splits(checked: Checked) -> Table | None:
    """The tasks of each split; none if tasks are made as they are needed."""
    sizes = checked.findings.sizes
    rows = tuple(
        row(split, f"{len(of):,}", f"{sum(of):,}", f"{min(of):,}", f"{median(of):,.0f}", f"{max(of):,}")
        for split, of in sizes.items()
        if of
    )
    return Table("Tasks", columns("split", "tasks", "rows", "fewest\nin a task", "median", "most"), rows) if rows else None


def large_enough(checked: Checked) -> Table:
    rows = tuple(row(what, f"{count:,} of {total:,}") for what, _, count, total in checked.enough)
    return Table("Held-out tasks that are large enough", columns("for", "tasks"), rows)
