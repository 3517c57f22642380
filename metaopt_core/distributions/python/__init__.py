"""Tasks from a class of the user's, a simulator for example: of it, only the drawing of one task is required.

    class Tasks:
        def task(self, rng, shots, queries):         # with classes: (self, rng, ways, shots, queries)
            return support_x, support_y, query_x, query_y

`rng` is a numpy.random.Generator that is a function of (seed, stream, index); all that is random has to come from it. Held-out
tasks come from `validation_task` and `test_task` where the class has them. They are drawn once, by `generate`, and stored.

Labels mean the same in every task, unless the class says in `classes` how many there are in all training tasks together: then a
task comes with a fifth value, the class that each of its labels stands for.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from metaopt_core.distributions.contract import Distribution
from metaopt_core.distributions.python.settings import PythonSettings
from metaopt_core.spec.distribution import TaskShape

if TYPE_CHECKING:
    from metaopt_core.distributions.batch import TaskDistribution


class PythonSpec(PythonSettings, Distribution):
    """Tasks of your own, drawn by a Python class; its source is a part of the identity of what is made with it."""

    distribution: Literal["python"] = Field(description="Which p(T): where tasks come from.")

    def materialize(self, seed: int, downloads: Path, folder: Path) -> TaskShape:  # noqa: ARG002
        from metaopt_core.distributions.python import drawing

        return drawing.materialize(self, seed, folder)

    def load(self, seed: int, folder: Path) -> "TaskDistribution":
        from metaopt_core.distributions.python import drawing

        return drawing.PythonTasks.load(self, seed, folder)
