"""Tasks that are drawn from a table: which rows, in which order, in which units."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch

from metaopt_core.distributions.batch import Episode, HeldOutSplit, TaskBatch
from metaopt_core.distributions.table.drawing import Table
from metaopt_core.errors import UserError
from metaopt_core.spec.distribution import TaskShape
from tests.metaopt_core.distributions.table.tables import EPISODE, frame, of_frame

HELD_OUT: list[HeldOutSplit] = ["validation", "test"]


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> tuple[Table, TaskShape, pd.DataFrame]:
    rows = frame()
    return *of_frame(rows, tmp_path_factory.mktemp("lines"), features={"categorical": []}), rows


def targets(shape: TaskShape, tasks: TaskBatch, part: str = "query") -> npt.NDArray[np.float32]:
    """Targets as the data have them."""
    origin = 0 if tasks.origin is None else tasks.origin[:, None]
    y = getattr(tasks, f"{part}_y") + origin
    return np.asarray(torch.tensor(shape.target_means) + torch.tensor(shape.target_scales) * y)


def same(first: TaskBatch, second: TaskBatch) -> bool:
    pairs = zip(vars(first).values(), vars(second).values(), strict=True)
    return all(one is two is None or torch.equal(one, two) for one, two in pairs)


def test_each_row_of_a_task_is_drawn_once_at_most_and_with_its_own_target(lines: tuple[Table, TaskShape, pd.DataFrame]) -> None:
    table, shape, rows = lines
    column = table.preparation.numeric[0]
    for tasks in (table.train(EPISODE, 0, 20), table.held_out("test", EPISODE, 0, 3)):
        y = np.concatenate([targets(shape, tasks, "support"), targets(shape, tasks)], 1)[..., 0]
        x = torch.cat([tasks.support_x, tasks.query_x], 1)[..., 0].numpy() * column.scale + column.mean
        for targets_of, inputs in zip(y, x, strict=True):
            apart = np.abs(rows.y.to_numpy() - targets_of[:, None]) + np.abs(rows.x.to_numpy() - inputs[:, None])
            assert apart.min(1).max() < 1e-3
            found = rows.iloc[apart.argmin(1)]
            assert found.id.is_unique
            assert len({*found.task}) == 1


def test_a_task_is_a_function_of_its_index(lines: tuple[Table, TaskShape, pd.DataFrame]) -> None:
    table = lines[0]
    assert same(table.train(EPISODE, 0, 30)[10:20], table.train(EPISODE, 10, 10))
    assert not torch.equal(table.train(EPISODE, 0, 5).support_x, table.train(EPISODE, 5, 5).support_x)
    assert not torch.equal(table.train(EPISODE, 0, 5).support_x, replace(table, seed=1).train(EPISODE, 0, 5).support_x)
    for split in HELD_OUT:
        assert same(table.held_out(split, EPISODE, 0, 3)[1:], table.held_out(split, EPISODE, 1, 2))
        assert same(table.held_out(split, EPISODE, 0, 3), replace(table, seed=1).held_out(split, EPISODE, 0, 3))


def test_fewer_shots_are_some_of_more_and_queries_stay_the_same(lines: tuple[Table, TaskShape, pd.DataFrame]) -> None:
    table, shape, _ = lines
    few, more = (table.held_out("test", Episode(None, shots, 4), 0, 3) for shots in (2, 5))
    assert few.support_x.equal(more.support_x[:, :2])
    assert few.query_x.equal(more.query_x)
    assert np.allclose(targets(shape, few), targets(shape, more), atol=1e-3)


def test_another_repeat_has_other_support_rows(lines: tuple[Table, TaskShape, pd.DataFrame]) -> None:
    first, second = (lines[0].held_out("test", replace(EPISODE, repeat=repeat), 0, 3) for repeat in (0, 1))
    assert not torch.equal(first.support_x, second.support_x)


def test_a_larger_support_set_is_trusted_more(lines: tuple[Table, TaskShape, pd.DataFrame]) -> None:
    table = lines[0]
    within, between = table.preparation.within[0], table.preparation.between[0]
    for shots in (1, 6):
        tasks = table.held_out("test", Episode(None, shots, 4), 0, 3)
        assert tasks.origin is not None
        mean = (tasks.support_y + tasks.origin[:, None]).mean(1)
        assert torch.allclose(tasks.origin, mean * shots * between / (shots * between + within), atol=1e-5)


def test_the_variances_are_those_of_the_tasks(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    names = np.repeat([f"t{number}" for number in range(2000)], random.integers(2, 12, 2000))
    offsets = dict(zip(np.unique(names), random.normal(0, 3, 2000), strict=True))
    y = 50 + np.array([offsets[name] for name in names]) + random.normal(0, 2, len(names))
    table, shape = of_frame(pd.DataFrame({"task": names, "x": random.normal(size=len(names)), "y": y}), tmp_path)
    variance = shape.target_scales[0] ** 2
    assert table.preparation.within[0] * variance == pytest.approx(4, rel=0.08)
    assert table.preparation.between[0] * variance == pytest.approx(9, rel=0.08)


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> tuple[Table, pd.DataFrame]:
    """Tasks of 3 to 14 rows."""
    rows = frame(60, 14)
    number = rows.groupby("task").cumcount()
    rows = rows[number < 3 + rows.task.str[1:].astype(int) % 12]
    return of_frame(rows, tmp_path_factory.mktemp("uneven"), features={"categorical": []})[0], rows


def test_small_tasks_are_padded_in_training_and_left_out_where_they_are_held_out(uneven: tuple[Table, pd.DataFrame]) -> None:
    table, rows = uneven
    tasks = table.train(EPISODE, 0, 400)
    assert tasks.query_weight is not None
    assert {*tasks.query_weight.sum(1).tolist()} == {1, 2, 3, 4}
    assert tasks.support_weight is not None
    assert (tasks.support_weight == 1).all()
    sizes = rows.groupby("task").size()
    for split in HELD_OUT:
        names = table.task_names(split)
        assert [names[number] for number in table.enough(split, EPISODE)] == [name for name in names if sizes[name] >= 7]
        held_out = table.held_out(split, EPISODE, 0, 100)
        assert held_out.query_weight is not None
        assert (held_out.query_weight == 1).all()
        assert len(held_out) == len(table.enough(split, EPISODE))


def test_a_range_of_shots_goes_from_the_fewest_to_the_most(uneven: tuple[Table, pd.DataFrame]) -> None:
    from metaopt_core.distributions.batch import with_own_shots
    from metaopt_core.distributions.random import Stream

    table, _ = uneven
    episode = Episode(None, 8, 4, fewest=2)
    tasks = table.train(episode, 0, 300)
    assert tasks.support_weight is not None
    assert tasks.query_weight is not None
    assert {*tasks.support_weight.sum(1).tolist()} == set(range(2, 9))
    assert tasks.query_weight.sum(1).min() >= 1
    assert same(tasks, with_own_shots(tasks, episode, table.seed, Stream.TRAIN_SHOTS, 0))


def test_too_small_tasks_are_an_error_that_says_which_and_what_would_fit(uneven: tuple[Table, pd.DataFrame]) -> None:
    table, _ = uneven
    with pytest.raises(
        UserError, match=r"meta-test tasks have fewer than the 30 rows that 20 shots and 10 queries take.*the largest has 12"
    ):
        table.enough("test", Episode(None, 20, 10))
    strict = replace(table, spec=table.spec.model_copy(update={"small_tasks": "error"}))
    with pytest.raises(UserError, match=r"all have 3 or more: expected fewer shots or queries, or generate.small_tasks: drop"):
        strict.enough("test", EPISODE)
    assert strict.enough("test", Episode(None, 1, 2))


def test_rows_draws_large_tasks_more_often(uneven: tuple[Table, pd.DataFrame]) -> None:
    table, _ = uneven
    by_rows = replace(table, spec=table.spec.model_copy(update={"weight": "rows"}))
    full = [one.train(EPISODE, 0, 500).query_weight.sum(1).eq(4).float().mean() for one in (table, by_rows)]  # type: ignore[union-attr]
    assert full[1] > full[0] + 0.1


def test_where_there_are_times_support_comes_before_queries(tmp_path: Path) -> None:
    rows = frame(40, 20)
    rows["when"] = np.random.default_rng(3).permutation(len(rows)).astype(float)
    rows["x"] = rows["when"]  # so that the order is seen
    table, _ = of_frame(rows, tmp_path, time="when", features={"numeric": ["x"], "categorical": []})
    drawn = [table.train(EPISODE, 0, 50), *(table.held_out("test", replace(EPISODE, repeat=repeat), 0, 3) for repeat in (0, 1))]
    for tasks in drawn:
        assert (tasks.support_x.amax(1) < tasks.query_x.amin(1)).all()
    assert len({*drawn[0].support_x[:, 0, 0].tolist()}) > 40
    first = [rows.when[rows.task == name].min() for name in table.task_names("test")[:3]]
    column = table.preparation.numeric[0]
    assert np.allclose(drawn[1].support_x[:, 0, 0] * column.scale + column.mean, first, atol=0.01)


def test_large_tasks_are_drawn_without_repetition(tmp_path: Path) -> None:
    rows = frame(6, 1500)
    table, _ = of_frame(rows, tmp_path, features={"categorical": []}, split={"train": 0.4, "validation": 0.3, "test": 0.3}, seed=4)
    tasks = table.train(Episode(None, 40, 60), 0, 5)
    x = torch.cat([tasks.support_x, tasks.query_x], 1)[..., 0]
    assert all(len(of_task.unique()) == 100 for of_task in x)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Table:
    rows = frame(40, 30)
    rows["y"] = np.where(rows.y > rows.groupby("task").y.transform("median"), "active", "inactive")
    rows = rows[(rows.task != "t03") | (rows.y == "active")]
    return of_frame(rows, tmp_path_factory.mktemp("shared"), problem="classification", features={"categorical": []})[0]


def test_shared_labels_mean_the_same_in_every_task(shared: Table) -> None:
    episode = Episode(2, 3, 4)
    assert shared.labels == ["active", "inactive"]
    tasks = shared.train(episode, 0, 50)
    assert tasks.support_y[0].tolist() == [0, 0, 0, 1, 1, 1]
    assert tasks.classes is not None
    assert tasks.classes.tolist() == [[0, 1]] * 50
    assert shared.train_classes is None
    names = {name for split in shared.splits.values() for name in split.names}
    assert "t03" in names  # it lacks a label, so it is in no episode
    for split in shared.splits.values():
        lacking = [bool((cells < 0).any()) for cells in split.cells]
        assert [name == "t03" for name in split.names] == lacking
    with pytest.raises(UserError, match=r"train.ways: 3, but y has 2 values in all tasks \(active, inactive\): expected 2"):
        shared.train(Episode(3, 3, 4), 0, 1)


def test_labels_per_task_are_any_of_its_own(tmp_path: Path) -> None:
    rows = frame(40, 40)
    rows["y"] = [f"{task}-{number % 5}" for task, number in zip(rows.task, range(len(rows)), strict=True)]
    table, _ = of_frame(rows, tmp_path, problem="classification", labels="per_task", features={"categorical": []})
    tasks = table.train(Episode(3, 2, 4), 0, 30)
    assert tasks.classes is not None
    assert table.train_classes == 5 * len(table.splits["train"].names)
    assert int(tasks.classes.max()) < table.train_classes
    assert all(len({*classes.tolist()}) == 3 for classes in tasks.classes)
    held_out = table.held_out("test", Episode(3, 2, 4), 0, 3)
    assert held_out.support_y.tolist() == [[0, 0, 1, 1, 2, 2]] * 3


def test_rows_of_all_tasks_are_in_the_units_of_the_tasks(lines: tuple[Table, TaskShape, pd.DataFrame]) -> None:
    table, shape, rows = lines
    found = table.rows("train")
    y = shape.target_means[0] + shape.target_scales[0] * found.y[:, 0].numpy()
    names = table.splits["train"].names
    expected = rows[rows.task.isin(names)]
    assert sorted(y.round(2)) == pytest.approx(sorted(expected.y.round(2)), abs=0.02)
    assert [names[task] for task in found.task[[0, -1]].tolist()] == [names[0], names[-1]]


def test_figures_are_drawn_of_regressions_and_classes(lines: tuple[Table, TaskShape, pd.DataFrame], shared: Table) -> None:
    from metaopt_core.distributions.batch import Prediction

    tasks = lines[0].held_out("test", EPISODE, 0, 3)
    made = Prediction("MAML", "tab:blue", tasks.query_y, tasks.query_y, 3)
    assert len(lines[0].overview().axes) == len(shared.overview().axes) == 2
    assert len(lines[0].examples(tasks, [made]).axes) == 3
    classified = shared.held_out("test", Episode(2, 3, 4), 0, 2)
    outputs = torch.nn.functional.one_hot(classified.query_y, 2).float()
    assert len(shared.examples(classified, [Prediction("MAML", "tab:blue", outputs, outputs, 3)]).axes) == 2
