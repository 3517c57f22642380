"""The settings of tasks of the user's class."""

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field

from metaopt_core.spec import user_source
from metaopt_core.spec.base import ImportPath, Impossibility, Positive, Ways
from metaopt_core.spec.distribution import Asked, DistributionSpec, Targets


class PythonSettings(DistributionSpec):
    """What `generate:` may say of a class of tasks, and what is known of them by that."""

    noun = "tasks of a Python class"
    not_shown = frozenset({"distribution", "held_out", "seed", "support_points", "query_points"})

    path: ImportPath = Field(
        description="Where the class is imported from, as in mytasks:Tasks; beside the pipelines file, or on Python's path."
    )
    arguments: dict[str, Any] = Field({}, description="Arguments of the class, by name.")
    problem: Literal["regression", "classification"] = Field(
        "regression",
        description="What a target is: a real number or several, `task(rng, shots, queries)`; or a label 0 … ways − 1, "
        "`task(rng, ways, shots, queries)`, with so many examples of each class.",
    )
    held_out_ways: Ways = Field(5, description="Classification: classes stored with each held-out task; a model of N ways uses N.")
    support_points: Positive = Field(
        20, description="Support examples (per class) stored with each held-out task; evaluation with K shots uses the first K."
    )
    query_points: Positive = Field(
        100, description="Query examples (per class) stored with each held-out task; evaluation with fewer queries uses the first."
    )

    @property
    def targets(self) -> Targets:
        return "real" if self.problem == "regression" else "classes"

    @property
    def code(self) -> tuple[str, ...]:
        return (self.path,)

    def data(self) -> None:
        """It reads none. Its source is there, and fits the arguments, or UserError is raised."""
        user_source.sources(self.path, "generate")
        user_source.check_class(self.path, self.arguments, (), "generate")

    def impossibilities(self, asked: Asked) -> Iterator[Impossibility]:
        if asked.ways is not None and self.targets == "classes" and asked.ways > self.held_out_ways:
            yield (
                ("train", "ways"),
                f"{asked.ways} ways, but held-out tasks store {self.held_out_ways} classes: expected at most that many, or a "
                "larger generate.held_out_ways",
            )
        for block, numbers in asked.episodes.items():
            if block == ("train",):
                continue
            for key, number, stored in zip(("shots", "queries"), numbers, (self.support_points, self.query_points), strict=True):
                if number > stored:
                    field = "support_points" if key == "shots" else "query_points"
                    yield (
                        (*block, key) if (*block, key) in asked.said else ("train", key),
                        f"{number} {key}, but held-out tasks store {stored}: expected at most that many, or a larger "
                        f"generate.{field}",
                    )
