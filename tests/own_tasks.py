"""Task distributions as a user would write them, and as one would not."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

Task = tuple[Any, ...]
_drawn: Iterator[int] = iter(range(10**9))


class Decays:
    """The decay of a drug in the blood: a task is a patient."""

    def __init__(self, noise: float = 0.1):
        self.noise = noise

    def task(self, rng: np.random.Generator, shots: int, queries: int) -> Task:
        amount, rate = rng.uniform(1, 3), rng.uniform(0.2, 2)
        time = rng.uniform(0, 5, shots + queries)
        level = amount * np.exp(-rate * time) + rng.normal(0, self.noise, time.shape)
        return time[:shots], level[:shots], time[shots:], level[shots:]


class Slow(Decays):
    """Test tasks of its own, in PyTorch."""

    def test_task(self, rng: np.random.Generator, shots: int, queries: int) -> Task:
        time = torch.from_numpy(rng.uniform(0, 5, (shots + queries, 1)))
        return time[:shots], 100 + time[:shots], time[shots:], 100 + time[shots:]


class Kinds:
    """Classification: which of several points it is near to; labels in no order."""

    def task(self, rng: np.random.Generator, ways: int, shots: int, queries: int) -> Task:
        centre = rng.normal(size=(ways, 2))

        def part(each: int) -> tuple[Any, Any]:
            labels = rng.permutation(np.arange(ways).repeat(each))
            return centre[labels] + 0.1 * rng.normal(size=(len(labels), 2)), labels

        return *part(shots), *part(queries)


class Letters(Kinds):
    """The same of 30 classes."""

    classes = 30

    def task(self, rng: np.random.Generator, ways: int, shots: int, queries: int) -> Task:
        return *super().task(rng, ways, shots, queries), rng.choice(self.classes, ways, replace=False)


class Wrong(Decays):
    """One thing is wrong."""

    def __init__(self, kind: str):
        super().__init__()
        if kind == "constructor":
            raise OSError("no such simulator")
        self.kind = kind

    def task(self, rng: np.random.Generator, shots: int, queries: int) -> Task:
        number = next(_drawn)
        support_x, support_y, query_x, query_y = map(np.array, super().task(rng, shots, queries))
        match self.kind:
            case "raises":
                raise RuntimeError("singular matrix")
            case "three":
                return support_x, support_y, query_x
            case "nothing":
                return None  # type: ignore[return-value]
            case "global":
                support_y = support_y + number
            case "fixed":
                return super().task(np.random.default_rng(0), shots, queries)
            case "nan":
                query_y[2] = np.nan
            case "text":
                support_x = support_x.astype(str)
            case "empty":
                support_x, support_y = support_x[:0], support_y[:0]
            case "always 20":
                support_x, support_y, *_ = super().task(rng, 20, queries)
            case "y":
                support_y = support_y[:-1]
            case "flat":
                query_y = query_y[None]
            case "wider queries":
                query_x = np.stack([query_x] * 2, 1)
            case "ragged":
                support_x = [[1.0], [1.0, 2.0]]  # type: ignore[assignment]
            case "varies":
                width = 1 + (query_x[0] > 2.5)
                support_x, query_x = (np.stack([x] * width, 1) for x in (support_x, query_x))
        return support_x, support_y, query_x, query_y


class Labels(Kinds):
    """Labels from 1 on."""

    def task(self, rng: np.random.Generator, ways: int, shots: int, queries: int) -> Task:
        support_x, support_y, query_x, query_y = super().task(rng, ways, shots, queries)
        return support_x, support_y + 1, query_x, query_y + 1


class Nothing:
    """No method at all."""
