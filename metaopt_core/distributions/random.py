"""Random numbers as a function of (seed, stream, index): what index i gets does not depend on what was drawn before.

Philox is a counter-based generator: its n-th number can be computed without the previous ones. Index i owns the numbers from
i·width on.
"""

from enum import IntEnum

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

_PER_COUNT = 4  # 64-bit numbers that Philox makes from one value of its counter


class Stream(IntEnum):
    """What random numbers are for. A number never changes its meaning: results depend on it."""

    TRAIN = 0
    VALIDATION = 1
    TEST = 2
    SPLIT = 3
    PARAMETERS = 4
    BASELINE_PARAMETERS = 5
    NEW_ALPHABETS = 6
    TRAIN_FAMILY = 7
    VALIDATION_FAMILY = 8
    TEST_FAMILY = 9
    TRAIN_NOISE = 10
    VALIDATION_NOISE = 11
    TEST_NOISE = 12
    TRAIN_SHOTS = 13
    HELD_OUT_SHOTS = 14
    TRAIN_AUGMENTATION = 15


NEVER_TRAINED_ON = 2**40
"""The index of a meta-train task that no training comes to."""


def uniform(seed: int, stream: Stream, start: int, count: int, width: int) -> npt.NDArray[np.float64]:
    """Uniform numbers in [0, 1), [count, width]: row j belongs to index start + j."""
    stride = -(-width // _PER_COUNT) * _PER_COUNT
    philox = np.random.Philox(key=np.array([seed, stream], dtype=np.uint64))
    philox.advance(start * stride // _PER_COUNT)
    raw = philox.random_raw(count * stride).reshape(count, stride)[:, :width]
    return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53


def generator(seed: int, stream: Stream, index: int) -> np.random.Generator:
    """NumPy's own interface to the random numbers of an index, which owns 2^66 of them; for code that isn't ours."""
    counter = np.array([0, index + 1, 0, 0], dtype=np.uint64)  # the numbers of `uniform` have 0 in the second place
    return np.random.Generator(np.random.Philox(key=np.array([seed, stream], dtype=np.uint64), counter=counter))


def normal(seed: int, stream: Stream, start: int, count: int, width: int) -> npt.NDArray[np.float64]:
    """Standard normal numbers, [count, width], by index like the uniform ones that they are made from."""
    return np.asarray(ndtri(np.maximum(uniform(seed, stream, start, count, width), 2.0**-54)))  # the quantile of 0 is −∞


def without_replacement(uniforms: npt.NDArray[np.float64], population: int | npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Distinct integers of 0 … population−1 from independent uniforms: [..., k] → [..., k], each ordered k-tuple equally likely.

    population: one for all, or [...]; if it is smaller than k, only the first `population` integers are meaningful.

    The j-th number picks one of the population−j values that are left; it is shifted past each earlier pick below it.
    """
    k = uniforms.shape[-1]
    if isinstance(population, int) and k > population:
        raise ValueError(f"{k} distinct numbers out of {population}: expected at most {population}")
    picks = np.empty(uniforms.shape, dtype=np.int64)
    for j in range(k):
        pick = (uniforms[..., j] * (population - j)).astype(np.int64)
        for earlier in np.moveaxis(np.sort(picks[..., :j], axis=-1), -1, 0):
            pick += pick >= earlier
        picks[..., j] = pick
    return picks
