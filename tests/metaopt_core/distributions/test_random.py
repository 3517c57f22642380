"""Random numbers by index: independent of the order of drawing, uniform, and without replacement where asked."""

from collections import Counter

import numpy as np
import pytest
from scipy import stats

from metaopt_core.distributions.random import Stream, uniform, without_replacement


def test_an_index_gets_the_same_numbers_however_they_are_drawn() -> None:
    whole = uniform(7, Stream.TRAIN, 0, 100, 5)
    parts = np.concatenate([uniform(7, Stream.TRAIN, start, count, 5) for start, count in ((0, 1), (1, 62), (63, 37))])
    assert np.array_equal(whole, parts)
    assert np.array_equal(whole[40:43], uniform(7, Stream.TRAIN, 40, 3, 5))


def test_seeds_streams_and_indices_get_different_numbers() -> None:
    blocks = [uniform(seed, stream, start, 50, 4) for seed in (0, 1) for stream in (Stream.TRAIN, Stream.TEST) for start in (0, 50)]
    assert len(np.unique(np.concatenate(blocks).ravel())) == 8 * 50 * 4


def test_numbers_are_uniform() -> None:
    numbers = uniform(0, Stream.TRAIN, 0, 20_000, 3)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert all(stats.kstest(column, "uniform").pvalue > 0.001 for column in numbers.T)


def test_ordered_picks_without_replacement_are_equally_likely() -> None:
    picks = without_replacement(uniform(0, Stream.TRAIN, 0, 24_000, 3), 4)
    counts = Counter(map(tuple, picks.tolist()))
    assert set(counts) == {(a, b, c) for a in range(4) for b in range(4) for c in range(4) if len({a, b, c}) == 3}
    assert stats.chisquare(list(counts.values())).pvalue > 0.001


def test_more_picks_than_the_population_holds_is_an_error() -> None:
    with pytest.raises(ValueError, match="5 distinct numbers out of 4"):
        without_replacement(np.zeros((1, 5)), 4)
