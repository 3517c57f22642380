"""How rows become what a network sees: everything that is fitted to the meta-train tasks, as data that travel with the model.

Nothing here needs PyTorch, and all of it is JSON: what stands for missing values, the categories that training has seen, and units.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Numeric:
    """A column of numbers: (value − mean) / scale, with `fill` for missing ones; indicator: whether another feature says where."""

    column: str
    fill: float
    mean: float
    scale: float
    indicator: bool

    @property
    def names(self) -> list[str]:
        return [self.column, *([f"{self.column} is missing"] if self.indicator else [])]

    def features(self, values: Numbers) -> Iterator[Numbers]:
        missing = np.isnan(values)
        yield (np.where(missing, self.fill, values) - self.mean) / self.scale
        if self.indicator:
            yield missing.astype(float)


@dataclass(frozen=True)
class Categorical:
    """A column of categories, a feature for each: those that training has seen, the rest of them, and missing ones.

    What training has not seen counts as the rest, or else as no category.
    """

    column: str
    categories: tuple[str, ...]
    rest: bool
    missing: bool

    @property
    def names(self) -> list[str]:
        further = [*(["another"] if self.rest else []), *(["missing"] if self.missing else [])]
        return [f"{self.column} is {category}" for category in (*self.categories, *further)]

    def codes(self, values: pa.Array) -> npt.NDArray[np.int64]:
        """The feature of each value [rows]; −1 for none, −2 for what training has not seen."""
        found = pc.fill_null(pc.index_in(values, pa.array(self.categories, pa.string())), -2).to_numpy(zero_copy_only=False)
        codes = found.astype(np.int64)
        codes[np.asarray(values.is_null())] = len(self.categories) + self.rest if self.missing else -1
        return np.asarray(codes)

    def features(self, values: pa.Array) -> Iterator[Numbers]:
        codes = self.codes(values)
        codes[codes == -2] = len(self.categories) if self.rest else -1
        for code in range(len(self.names)):
            yield (codes == code).astype(float)


@dataclass(frozen=True)
class Preparation:
    """From a table's columns to numbers.

    targets: the target columns. means, scales: their units in the meta-train tasks (0 and 1 where they stay as they are).
    within, between: of each target, in these units, the variance within tasks and between their means. centered: whether a task's
    targets are less its `origin`. classes: the labels, where they mean the same in every task.
    """

    numeric: tuple[Numeric, ...]
    categorical: tuple[Categorical, ...]
    targets: tuple[str, ...]
    means: tuple[float, ...] = ()
    scales: tuple[float, ...] = ()
    within: tuple[float, ...] = ()
    between: tuple[float, ...] = ()
    classes: tuple[str, ...] = ()
    centered: bool = False

    @property
    def columns(self) -> tuple[Numeric | Categorical, ...]:
        return (*self.numeric, *self.categorical)

    @property
    def names(self) -> list[str]:
        """What each feature is called."""
        return [name for column in self.columns for name in column.names]

    @property
    def features_of(self) -> dict[str, list[int]]:
        """Column of the table → the numbers of its features."""
        names, found = iter(range(len(self.names))), {}
        for column in self.columns:
            found[column.column] = [next(names) for _ in column.names]
        return found

    def x(self, columns: Mapping[str, pa.Array]) -> npt.NDArray[np.float32]:
        """The features [rows, features] of columns of numbers and text."""
        rows = len(next(iter(columns.values())))
        found = np.empty((rows, len(self.names)), dtype=np.float32)
        place = 0
        for column in self.columns:
            values = columns[column.column]
            for feature in column.features(numbers(values) if isinstance(column, Numeric) else text(values)):
                found[:, place] = feature
                place += 1
        return found

    def y(self, columns: Mapping[str, pa.Array]) -> npt.NDArray[np.float32]:
        """The targets [rows, targets] of a regression, in the units of the meta-train tasks."""
        values = np.stack([numbers(columns[name]) for name in self.targets], 1)
        return np.asarray((values - np.array(self.means)) / np.array(self.scales), dtype=np.float32)

    def origin(self, y: Numbers, weight: Numbers | None = None) -> Numbers:
        """What is subtracted from tasks' targets: the mean of their support sets, shrunk towards the meta-train tasks' mean, 0.

        y [..., support, targets]; weight [..., support]; the result has 1 in the place of `support`. The mean of k values is taken
        times k b / (k b + w), with variances b between and w within tasks: the best linear predictor of a task's mean (Robinson,
        That BLUP is a Good Thing, Statistical Science 6, 1991).
        """
        if not self.centered:
            return np.zeros((*y.shape[:-2], 1, y.shape[-1]))
        weight = np.ones(y.shape[:-1]) if weight is None else weight
        count = weight.sum(-1)[..., None, None]
        mean = (y * weight[..., None]).sum(-2, keepdims=True) / np.maximum(count, 1)
        within, between = np.array(self.within), np.array(self.between)
        return np.asarray(mean * count * between / np.maximum(count * between + within, 1e-12))

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        rest = {key: tuple(value) for key, value in values.items() if key not in ("numeric", "categorical", "centered")}
        numeric = tuple(Numeric(**one) for one in values["numeric"])
        categorical = tuple(Categorical(**{**one, "categories": tuple(one["categories"])}) for one in values["categorical"])
        return cls(numeric, categorical, **rest, centered=bool(values["centered"]))


def numbers(array: pa.Array) -> Numbers:
    """Values as float64, not a number where one is missing."""
    return np.asarray(array.cast(pa.float64()).to_numpy(zero_copy_only=False))


def text(array: pa.Array) -> pa.Array:
    """Values as text; whole numbers without a decimal point."""
    return array if pa.types.is_string(array.type) else array.cast(pa.string())


def joined(arrays: Sequence[pa.Array]) -> pa.Array:
    """Several columns' texts as one, missing where one of them is."""
    return text(arrays[0]) if len(arrays) == 1 else pc.binary_join_element_wise(*map(text, arrays), " / ")
