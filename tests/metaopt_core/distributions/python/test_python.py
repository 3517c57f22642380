"""Tasks of the user's class: functions of their index, stored once, and tried out before anything is trained on them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metaopt_core.distributions.batch import Episode, Tasks
from metaopt_core.distributions.contract import load, materialize
from metaopt_core.distributions.python import PythonSpec
from metaopt_core.errors import UserError
from metaopt_core.pipeline.identity import identities
from metaopt_core.spec.distribution import HeldOut
from metaopt_core.spec.pipeline import PipelineSpec
from tests.small import setting_of, train_all

HELD_OUT = HeldOut(validation_tasks=5, test_tasks=8)


def spec_of(name: str, **settings: Any) -> PythonSpec:
    path = name if ":" in name else f"tests.own_tasks:{name}"
    return PythonSpec(distribution="python", path=path, held_out=HELD_OUT, **settings)


def made(folder: Path, name: str, **settings: Any) -> Any:
    folder.mkdir(exist_ok=True)
    materialize(spec_of(name, **settings), 3, folder, folder)
    return load(folder, 3)


def test_regression_has_the_shape_that_the_class_gives(tmp_path: Path) -> None:
    distribution, shape = made(tmp_path, "Decays", arguments={"noise": 0.0})
    assert (shape.input_shape, shape.targets, shape.outputs) == ((1,), "real", 1)
    tasks = distribution.train(Episode(None, 4, 6), 10, 3)
    assert (tasks.support_x.shape, tasks.query_y.shape) == ((3, 4, 1), (3, 6, 1))
    rate = (tasks.query_y[:, 1:] / tasks.query_y[:, :1]).log() / (tasks.query_x[:, :1] - tasks.query_x[:, 1:])
    assert torch.allclose(rate, rate[:, :1].expand_as(rate), atol=2e-3)  # one of each task's own


def test_a_task_is_a_function_of_its_index_and_of_the_seed(tmp_path: Path) -> None:
    distribution, _ = made(tmp_path, "Decays")
    episode = Episode(None, 4, 6)
    alone, among = distribution.train(episode, 7, 1), distribution.train(episode, 5, 4)
    assert torch.equal(alone.support_y, among.support_y[2:3])
    assert not torch.equal(among.support_y[0], among.support_y[1])
    other = load(tmp_path, 4)[0]
    assert not torch.equal(other.train(episode, 7, 1).support_y, alone.support_y)
    stored = [one.held_out("test", episode, 0, 8).query_y for one in (distribution, other)]
    assert torch.equal(*stored)  # whatever seed training has


def test_held_out_tasks_may_come_from_methods_of_their_own(tmp_path: Path) -> None:
    distribution, _ = made(tmp_path, "Slow")
    assert (distribution.held_out("test", Episode(None, 4, 6), 0, 8).query_y >= 100).all()
    assert (distribution.held_out("validation", Episode(None, 4, 6), 0, 5).query_y < 100).all()


def test_classification_is_ordered_by_label_and_fewer_ways_are_the_first(tmp_path: Path) -> None:
    distribution, shape = made(tmp_path, "Kinds", problem="classification", held_out_ways=4)
    assert (shape.targets, distribution.train_classes) == ("classes", None)
    tasks = distribution.train(Episode(3, 2, 5), 0, 6)
    assert tasks.support_y.tolist() == [[0, 0, 1, 1, 2, 2]] * 6
    centre = tasks.support_x.view(6, 3, 2, 2).mean(2)
    nearest = torch.cdist(tasks.query_x, centre).argmin(-1)
    assert (nearest == tasks.query_y).float().mean() > 0.8
    many, few = (distribution.held_out("test", Episode(ways, 2, 5), 0, 8) for ways in (4, 2))
    assert torch.equal(few.support_x, many.support_x[:, :4])
    assert torch.equal(few.query_x, many.query_x[:, :10])
    assert len(many.classes.unique()) == many.classes.numel()  # no two test tasks share one


def test_classes_of_all_tasks_together_are_what_pre_training_tells_apart(tmp_path: Path) -> None:
    distribution, _ = made(tmp_path, "Letters", problem="classification")
    assert distribution.train_classes == 30
    classes = distribution.train(Episode(5, 1, 1), 0, 50).classes
    assert classes.max() < 30
    assert all(len(set(row)) == 5 for row in classes.tolist())


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("Wrong", {"kind": "constructor"}, r"Wrong can't be made: .*own_tasks.py:\d+: OSError: no such simulator"),
        ("Wrong", {"kind": "raises"}, r"task 0 can't be drawn: .*own_tasks.py:\d+: RuntimeError: singular matrix"),
        ("Wrong", {"kind": "three"}, r"task 0 is 3 values: expected task\(self, rng, shots, queries\)"),
        ("Wrong", {"kind": "nothing"}, "task 0 is a NoneType"),
        ("Wrong", {"kind": "global"}, "task 0 differs when it is drawn again.*random comes from `rng`"),
        ("Wrong", {"kind": "fixed"}, "tasks 0 and 1 are the same"),
        ("Wrong", {"kind": "nan"}, "task 0: query_y has nan in row 2: expected finite numbers"),
        ("Wrong", {"kind": "text"}, "support_x is of <U.*: expected real numbers"),
        ("Wrong", {"kind": "empty"}, "support_x is empty: expected 20 rows, as asked for by shots=20"),
        ("Wrong", {"kind": "always 20"}, "support_x has 20 rows: expected 1, as asked for by shots=1"),
        ("Wrong", {"kind": "y"}, "support_y has 19 rows: expected 20"),
        ("Wrong", {"kind": "flat"}, "query_y has 1 rows: expected 100"),
        ("Wrong", {"kind": "wider queries"}, r"an example of support_x is \[1\], and one of query_x \[2\]"),
        ("Wrong", {"kind": "ragged"}, "support_x is no array"),
        ("Wrong", {"kind": "varies"}, r"task \d has examples \[\d\].*: expected \[\d\] with 1, as the first task has"),
        ("Nothing", {}, r"it has no method `task`: expected task\(self, rng, shots, queries\)"),
        ("Missing", {}, "tests.own_tasks has no Missing: expected module:Class"),
        ("np", {}, "tests.own_tasks has np, which is no class"),
        ("tests.no_tasks:Tasks", {}, "no module tests.no_tasks in "),
    ],
)
def test_what_is_wrong_is_one_error_before_anything_is_stored(
    tmp_path: Path, name: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=f"^generate.path: .*{message}"):
        made(tmp_path, name, arguments=settings)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Labels", "support_y has labels 20 of 1, .*: expected 20 of each from 0 to 4"),
        ("Decays", r"task 0 can't be drawn: .*TypeError.*positional argument"),
    ],
)
def test_labels_are_whole_numbers_from_0_on(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        made(tmp_path, name, problem="classification")


def test_more_than_fits_on_a_disk_is_refused(tmp_path: Path) -> None:
    spec = spec_of("Decays", query_points=10**6).model_copy(update={"held_out": HeldOut(test_tasks=10**6)})
    with pytest.raises(UserError, match=r"generate.held_out: 1000200 tasks of 1000020 examples .* GiB: expected at most 16"):
        materialize(spec, 0, tmp_path, tmp_path)


def pipeline(**generate: Any) -> PipelineSpec:
    return PipelineSpec.model_validate(
        {
            "name": "own",
            "generate": {"distribution": "python", "path": "own_tasks_here:Tasks", "held_out": HELD_OUT.model_dump(), **generate},
            "train": {"model": {"name": "mlp", "hidden": [8]}, "iterations": 20, "shots": 5, "queries": 5},
            "evaluate": {"steps": 2},
        }
    )


SOURCE = (Path(__file__).parents[3] / "own_tasks.py").read_text().split("class Slow")[0].replace("class Decays", "class Tasks")


def test_its_source_is_part_of_what_every_stage_depends_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    file = tmp_path / "own_tasks_here.py"
    file.write_text(SOURCE)
    before = identities(pipeline())
    file.write_text("# A comment changes nothing.\n" + SOURCE)
    assert identities(pipeline()) == before
    file.write_text(SOURCE.replace("uniform(1, 3)", "uniform(1, 4)"))
    after = identities(pipeline())
    assert all(before[stage].fingerprint != after[stage].fingerprint for stage in before)
    with pytest.raises(UserError, match=r"^generate.arguments.nois: \S+ takes no such argument: expected one of noise"):
        identities(pipeline(arguments={"nois": 1}))


def test_it_trains_and_is_pictured(tmp_path: Path) -> None:
    spec = pipeline(path="tests.own_tasks:Decays")
    setting = setting_of(spec, tmp_path)
    trained = train_all(setting, tmp_path)["maml"]
    assert np.isfinite(trained.history[-1].value)
    tasks = Tasks.held_out(setting.distribution, "test", Episode(None, 5, 5)).all()
    assert len(setting.distribution.overview().axes) == 4
    assert len(tasks) == HELD_OUT.test_tasks


def test_asking_for_more_than_is_stored_is_impossible() -> None:
    values = pipeline().model_dump(exclude_unset=True)
    with pytest.raises(ValueError, match="30 shots, but held-out tasks store 20: expected at most that many, or a larger "):
        PipelineSpec.model_validate(values | {"evaluate": {"steps": 2, "shots": 30}})
