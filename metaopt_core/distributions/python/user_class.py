"""The user's class: imported, made, tried out before anything is stored, and asked for tasks.

Every task is checked as it comes, so that what is wrong with number 7,123 is said of that one, in one line.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from metaopt_core.distributions.python.settings import PythonSettings
from metaopt_core.distributions.random import Stream, generator
from metaopt_core.errors import UserError
from metaopt_core.spec import user_source
from metaopt_core.spec.distribution import TaskShape

Array = npt.NDArray[Any]
NAMES = ("support_x", "support_y", "query_x", "query_y")

_METHODS = {Stream.TRAIN: "task", Stream.VALIDATION: "validation_task", Stream.TEST: "test_task"}


@dataclass(frozen=True)
class Drawn:
    """A task: x [examples, …] in float32; y [examples, outputs] in float32, or labels [examples] in int64, in ascending order.

    classes [ways]: the class of the whole split that each label stands for.
    """

    support_x: Array
    support_y: Array
    query_x: Array
    query_y: Array
    classes: Array | None

    def same(self, other: "Drawn") -> bool:
        return all(np.array_equal(getattr(self, name), getattr(other, name)) for name in (*NAMES, "classes"))


class UserClass:
    """An instance of the class that a spec names. Raises UserError where there is none, or where it isn't what it has to be."""

    def __init__(self, spec: PythonSettings):
        self._spec = spec
        self._made = _instance(spec)
        if not callable(getattr(self._made, "task", None)):
            self._mistake(f"it has no method `task`: expected {self._signature}")
        classes = getattr(self._made, "classes", None)
        if classes is not None and (type(classes) is not int or classes < 1):
            self._mistake(f"its `classes` is {classes!r}: expected the number of classes of all training tasks together")
        self.classes: int | None = classes if spec.targets == "classes" else None

    @property
    def _signature(self) -> str:
        ways = "" if self._spec.targets == "real" else "ways, "
        more = ", and the class that each label stands for" if getattr(self, "classes", None) else ""
        return f"task(self, rng, {ways}shots, queries), which returns support_x, support_y, query_x, query_y{more}"

    def draw(self, seed: int, stream: Stream, index: int, ways: int | None, shots: int, queries: int) -> Drawn:
        """A task as a function of (seed, stream, index)."""
        named = _METHODS[stream]
        method: Callable[..., Any] = getattr(self._made, named, None) or self._made.task
        asked = (shots, queries) if ways is None else (ways, shots, queries)
        try:
            returned = method(generator(seed, stream, index), *asked)
        except Exception as error:
            raise UserError(
                f"generate.path: {self._spec.path}: task {index} can't be drawn: {user_source.raised(error)}"
            ) from error
        given = len(NAMES) + (self.classes is not None)
        if not isinstance(returned, tuple | list) or len(returned) != given:
            what = f"{len(returned)} values" if isinstance(returned, tuple | list) else f"a {type(returned).__name__}"
            self._mistake(f"task {index} is {what}: expected {self._signature}")
        values = {name: self._numbers(index, name, value) for name, value in zip(NAMES, returned, strict=False)}
        for part, each in (("support", shots), ("query", queries)):
            self._check_part(index, part, values[f"{part}_x"], values[f"{part}_y"], each, ways)
        shapes = [values[f"{part}_x"].shape[1:] for part in ("support", "query")]
        if shapes[0] != shapes[1]:
            self._mistake(f"task {index}: an example of support_x is {list(shapes[0])}, and one of query_x {list(shapes[1])}")
        if ways is not None:
            for part in ("support", "query"):
                order = np.argsort(values[f"{part}_y"], kind="stable")
                values |= {name: values[name][order] for name in (f"{part}_x", f"{part}_y")}
        return Drawn(**values, classes=self._classes(stream, index, ways, returned))

    def _numbers(self, index: int, name: str, value: Any) -> Array:
        """An array of the type that it is used in, at least [examples, 1] except for labels."""
        if hasattr(value, "detach"):  # PyTorch's
            value = value.detach().cpu().numpy()
        try:
            array = np.asarray(value)
        except ValueError as error:
            self._mistake(f"task {index}: {name} is no array ({error}): expected one [examples, …]")
        labels = name.endswith("_y") and self._spec.targets == "classes"
        if array.dtype.kind not in ("iu" if labels else "iufb"):
            self._mistake(f"task {index}: {name} is of {array.dtype}: expected {'whole numbers' if labels else 'real numbers'}")
        if array.ndim == 0:
            self._mistake(f"task {index}: {name} is a single number: expected an array [examples, …]")
        if labels:
            return array.reshape(-1).astype(np.int64) if array.ndim == 1 or array.shape[1:] == (1,) else array
        with np.errstate(over="ignore"):
            array = array.astype(np.float32)
        if not np.isfinite(array).all():
            where = np.argwhere(~np.isfinite(array))[0]
            self._mistake(f"task {index}: {name} has {array[tuple(where)]} in row {where[0]}: expected finite numbers (float32)")
        return array[:, None] if array.ndim == 1 else array

    def _check_part(self, index: int, part: str, x: Array, y: Array, each: int, ways: int | None) -> None:
        expected = each * (ways or 1)
        asked = f"{'shots' if part == 'support' else 'queries'}={each}" + (f" of each of {ways} ways" if ways else "")
        for name, array in ((f"{part}_x", x), (f"{part}_y", y)):
            if len(array) == 0:
                self._mistake(f"task {index}: {name} is empty: expected {expected} rows, as asked for by {asked}")
            if len(array) != expected:
                self._mistake(f"task {index}: {name} has {len(array)} rows: expected {expected}, as asked for by {asked}")
        if y.ndim != (2 if ways is None else 1):
            shape = "[examples, outputs]" if ways is None else "[examples]"
            self._mistake(f"task {index}: {part}_y is {list(y.shape)}: expected {shape}")
        if ways is not None:
            labels, counts = np.unique(y, return_counts=True)
            if labels.tolist() != list(range(ways)) or (counts != each).any():
                found = ", ".join(f"{count} of {label}" for label, count in zip(labels[:10], counts, strict=False))
                self._mistake(f"task {index}: {part}_y has labels {found}: expected {each} of each from 0 to {ways - 1}")

    def _classes(self, stream: Stream, index: int, ways: int | None, returned: Any) -> Array | None:
        """Where labels mean the same in every task, held-out tasks share no class by which they would be hard together."""
        if ways is None:
            return None
        if self.classes is None:
            return np.arange(ways) + (0 if stream == Stream.TRAIN else index * ways)
        classes = np.asarray(returned[-1])
        if classes.shape != (ways,) or classes.dtype.kind not in "iu" or (classes < 0).any():
            self._mistake(f"task {index}: its classes are {classes.tolist()}: expected {ways} numbers from 0 on")
        if stream == Stream.TRAIN and (classes >= self.classes).any():
            self._mistake(f"task {index}: its classes are {classes.tolist()}: expected numbers below `classes`, {self.classes}")
        return classes.astype(np.int64)

    def _mistake(self, message: str) -> NoReturn:
        raise UserError(f"generate.path: {self._spec.path}: {message}")

    def tried(self, seed: int) -> TaskShape:
        """The shape of its tasks, after some were drawn in several ways. Raises UserError for what would be wrong later."""
        spec = self._spec
        ways = None if spec.targets == "real" else spec.held_out_ways

        def draw(index: int, by: UserClass = self, shots: int = spec.support_points, stream: Stream = Stream.TRAIN) -> Drawn:
            return by.draw(seed, stream, index, ways, shots, spec.query_points)

        first, second = draw(0), draw(1)
        if not draw(0).same(first):
            self._mistake(
                "task 0 differs when it is drawn again: expected a function of its arguments, so that all that is random comes "
                "from `rng`, and nothing is kept from one task to the next"
            )
        if not draw(0, UserClass(spec)).same(first):
            self._mistake("task 0 differs in another instance of the class: expected one that depends on its arguments alone")
        if second.same(first):
            self._mistake("tasks 0 and 1 are the same: expected all that differs between tasks to come from `rng`")
        draw(0, shots=1)
        shape = TaskShape(first.support_x.shape[1:], spec.targets, 1 if ways else first.support_y.shape[1])
        for stream in _METHODS:
            for index in range(3):
                self.check_shape(draw(index, stream=stream), shape, index, stream)
        return shape

    def check_shape(self, drawn: Drawn, shape: TaskShape, index: int, stream: Stream) -> None:
        """Raises UserError for a task of another shape than the first one has."""
        found = [drawn.support_x.shape[1:], drawn.query_x.shape[1:]]
        outputs = {1} if drawn.support_y.ndim == 1 else {drawn.support_y.shape[1], drawn.query_y.shape[1]}
        if found != [shape.input_shape] * 2 or outputs != {shape.outputs}:
            kind = "" if stream == Stream.TRAIN else f"{stream.name.lower()} "
            x, y = [list(one) for one in found], sorted(outputs)
            self._mistake(
                f"{kind}task {index} has examples {x[0]} (queries {x[1]}) with {y[0]} outputs: expected {list(shape.input_shape)} "
                f"with {shape.outputs}, as the first task has"
            )


def _instance(spec: PythonSettings) -> Any:
    module, _, name = spec.path.partition(":")
    user_source.sources(spec.path, "generate")  # says where it was looked for
    try:
        found = getattr(importlib.import_module(module), name, None)
    except Exception as error:
        raise UserError(f"generate.path: {module} can't be imported: {user_source.raised(error)}") from error
    if not isinstance(found, type):
        kind = f"no {name}" if found is None else f"{name}, which is no class"
        raise UserError(f"generate.path: {module} has {kind}: expected module:Class, as in mytasks:Tasks")
    try:
        return found(**spec.arguments)
    except Exception as error:
        raise UserError(f"generate.path: {spec.path} can't be made: {user_source.raised(error)}") from error
