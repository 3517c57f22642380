"""Which stages run, and why: decided from the spec and the store alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from flows.planning import StagePlan, for_people, in_brief, plan, select
from metaopt_core.errors import UserError
from metaopt_core.pipeline.execution import Execution
from metaopt_core.pipeline.home import Home
from metaopt_core.pipeline.identity import identities
from metaopt_core.pipeline.stages import STAGES
from metaopt_core.pipeline.store import StageOutput, Store
from metaopt_core.spec.pipeline import PipelineSpec
from metaopt_core.training.checkpoint import save_checkpoint

ALL = ("generate", "train", "evaluate", "log")


def _spec(**changes: Any) -> PipelineSpec:
    """The tiny pipeline, with values changed by dotted key (`__` for a dot)."""
    values: dict[str, Any] = {
        "name": "tiny",
        "generate": {"distribution": "sinusoid"},
        "train": {"model": {"name": "mlp"}, "iterations": 6, "shots": 5, "queries": 5},
        "evaluate": {"steps": 3},
    }
    for key, value in changes.items():
        block, name = key.split("__")
        values[block] = values.get(block, {}) | {name: value}
    return PipelineSpec.model_validate(values)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(Home(tmp_path))


def _plan(store: Store, spec: PipelineSpec, selected: Sequence[str] = ALL, force: bool = False) -> list[StagePlan]:
    return plan(Execution.of(store.home, spec), selected, force)


def _carry_out(store: Store, spec: PipelineSpec) -> None:
    """Publish an output for every stage that a plan would run, with the fingerprint as its content."""
    made: dict[str, StageOutput] = {}
    for name, identity in identities(spec).items():
        upstream = {stage: made[stage] for stage in STAGES[name].upstream}
        found = store.get(identity, upstream)
        if isinstance(found, str):
            with store.publish(identity, upstream) as (folder, _):
                (folder / "result.txt").write_text(identity.fingerprint)
            found = store.get(identity, upstream)
            assert isinstance(found, StageOutput)
        store.remember(spec.name, identity)
        made[name] = found


def _running(store: Store, spec: PipelineSpec, *selected: str, force: bool = False) -> list[str]:
    return [entry.stage for entry in _plan(store, spec, selected or ALL, force) if entry.runs]


def test_everything_runs_the_first_time(store: Store) -> None:
    plans = _plan(store, _spec())
    assert [entry.stage for entry in plans] == list(ALL)
    assert all(entry.reasons == ("never run",) for entry in plans)


def test_nothing_runs_where_nothing_changed(store: Store) -> None:
    _carry_out(store, _spec())
    assert [entry.status for entry in _plan(store, _spec())] == ["up to date"] * 4


def test_a_changed_evaluation_runs_evaluate_and_log_and_names_both_values(store: Store) -> None:
    _carry_out(store, _spec())
    plans = {entry.stage: entry for entry in _plan(store, _spec(evaluate__steps=7))}
    assert [entry.stage for entry in plans.values() if entry.runs] == ["evaluate", "log"]
    assert plans["evaluate"].reasons == ("evaluate.steps: 3 → 7",)
    assert "evaluate" in plans["log"].reasons[0]


def test_a_changed_distribution_runs_everything(store: Store) -> None:
    _carry_out(store, _spec())
    assert _running(store, _spec(generate__support_points=30)) == list(ALL)


def test_what_cannot_change_a_result_runs_nothing(store: Store) -> None:
    _carry_out(store, _spec())
    changed = _spec(train__checkpoint_every=5.0).model_copy(update={"device": "cpu", "description": "other words"})
    assert _running(store, changed) == []


def test_going_back_to_an_earlier_spec_runs_nothing(store: Store) -> None:
    _carry_out(store, _spec())
    _carry_out(store, _spec(evaluate__steps=7))
    assert _running(store, _spec()) == []


@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_a_damaged_output_re_runs_what_made_it_and_names_the_file(store: Store, damage: str) -> None:
    _carry_out(store, _spec())
    file = store.folder(identities(_spec())["train"]) / "result.txt"
    file.unlink() if damage == "missing" else file.write_text("x")
    runs = [entry for entry in _plan(store, _spec()) if entry.runs]
    assert [entry.stage for entry in runs] == ["train"]
    assert runs[0].reasons[0].startswith(f"{damage} file")
    assert "result.txt" in runs[0].reasons[0]


def test_force_runs_the_selected_stages_alone(store: Store) -> None:
    _carry_out(store, _spec())
    assert _running(store, _spec(), "evaluate", force=True) == ["evaluate"]


def test_what_was_asked_for_again_would_run_until_it_is_made_and_its_old_output_stays(store: Store) -> None:
    spec = _spec()
    _carry_out(store, spec)
    store.ask_again(identities(spec)["train"])
    plans = {entry.stage: entry for entry in _plan(store, spec)}
    assert [entry.stage for entry in plans.values() if entry.runs] == ["train"]
    assert plans["train"].reasons == ("--force, not finished yet",)
    assert plans["train"].output is not None
    _checkpoint(store, spec, "maml", 5200)
    assert _reasons(store, spec, "train") == ("--force, continues at iteration 5,200",)

    _made(store, spec, "train", "other numbers")
    assert _reasons(store, spec, "train") == ()
    assert _reasons(store, spec, "evaluate") == ("changed output of train",)


def test_training_that_was_interrupted_says_where_it_continues(store: Store) -> None:
    spec = _spec()
    _checkpoint(store, spec, "maml", 5200)
    assert _reasons(store, spec, "train") == ("continues at iteration 5,200",)
    assert _reasons(store, spec, "generate") == ("never run",)
    _checkpoint(store, spec, "pretrained", 40)
    assert _reasons(store, spec, "train") == ("continues at iteration 40 of pretrained",)


def _reasons(store: Store, spec: PipelineSpec, stage: str) -> tuple[str, ...]:
    return next(entry.reasons for entry in _plan(store, spec) if entry.stage == stage)


def _checkpoint(store: Store, spec: PipelineSpec, phase: str, iteration: int) -> None:
    path = store.home.checkpoints / identities(spec)["train"].fingerprint / f"{phase}.safetensors"
    save_checkpoint(path, {"params.w": torch.zeros(1)}, {"iteration": iteration})


def _made(store: Store, spec: PipelineSpec, stage: str, text: str) -> None:
    """Publish a stage's output anew."""
    known = identities(spec)
    upstream: dict[str, StageOutput] = {name: store.made(known[name]) for name in STAGES[stage].upstream}
    with store.publish(known[stage], upstream) as (folder, _):
        (folder / "result.txt").write_text(text)


def test_a_stage_without_its_upstream_output_names_the_command_that_makes_it(store: Store) -> None:
    with pytest.raises(UserError, match=r"evaluate needs the output of generate and train.*metaopt run tiny --to train"):
        _plan(store, _spec(), ["evaluate"])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ALL),
        ({"only": "train"}, ("train",)),
        ({"first": "train"}, ("train", "evaluate", "log")),
        ({"last": "train"}, ("generate", "train")),
        ({"first": "train", "last": "evaluate"}, ("train", "evaluate")),
    ],
)
def test_selection_by_name_and_by_range(options: dict[str, str], expected: tuple[str, ...]) -> None:
    assert select(**options) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"only": "trian"}, "did you mean train"),
        ({"first": "x"}, "expected one of generate, train, evaluate, log"),
        ({"only": "train", "last": "log"}, "one or the other"),
        ({"first": "log", "last": "train"}, "log comes after train"),
    ],
)
def test_an_impossible_selection_is_a_users_error(options: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        select(**options)


def test_a_running_stage_says_its_first_reasons() -> None:
    assert in_brief(["a", "b"]) == "a; b"
    assert in_brief(["a", "b", "c", "d", "e"]) == "a; b; c; and 2 more"


def test_many_changed_files_are_one_reason() -> None:
    files = [f"changed code {name}.py" for name in "abcd"]
    assert for_people(["x: 1 → 2", *files[:3]]) == ["x: 1 → 2", *files[:3]]
    assert for_people(["x: 1 → 2", *files]) == ["x: 1 → 2", "changed code in 4 files, a.py among them"]
