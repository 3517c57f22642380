"""The search: which trials there are, that none is lost or carried out twice, and that a seed decides what is tried."""

import time
from pathlib import Path
from typing import Any

import pytest

from metaopt_core.errors import StoppedError
from metaopt_core.pipeline.home import Home
from metaopt_core.pipeline.search import Sweep, figures
from metaopt_core.spec.pipeline import PipelineSpec
from metaopt_core.training.loop import Record
from tests.made_outputs import sinusoid_spec

PARAMETERS = {
    "train.inner.lr": {"low": 0.001, "high": 0.1, "log": True},
    "train.inner.steps": {"low": 1, "high": 5},
    "train.model.hidden": {"choices": [[8], [16, 16]]},
}


def spec_with(**search: Any) -> PipelineSpec:
    return sinusoid_spec("waves", sweep={"parameters": PARAMETERS, "trials": 4} | search)


def carry_on(sweep: Sweep, trials: int = 100) -> list[dict[str, Any]]:
    """Finish that many trials, with the inner step size as objective, and return what was tried."""
    tried = []
    for _ in range(trials):
        with sweep.claimed() as claim:
            if claim is None:
                break
            tried.append(claim.setting)
            claim.finish(claim.setting["train.inner.lr"])
    return tried


def test_the_first_trial_is_the_pipeline_as_it_stands(tmp_path: Path) -> None:
    with Sweep(Home(tmp_path), spec_with()).claimed() as claim:
        assert claim is not None
        assert claim.setting == {"train.inner.lr": 0.01, "train.inner.steps": 1, "train.model.hidden": [8]}


def test_a_trial_is_the_pipeline_with_its_values_and_no_baseline(tmp_path: Path) -> None:
    sweep = Sweep(Home(tmp_path), spec_with(trial={"train.iterations": 7}))
    carry_on(sweep, 1)
    with sweep.claimed() as claim:
        assert claim is not None
        spec = claim.spec()
        assert (spec.train.inner.lr, spec.train.iterations, spec.train.baselines) == (claim.setting["train.inner.lr"], 7, ())
        assert [method.name for method in spec.methods if method.trained] == ["maml"]
        assert (spec.name, spec.log.experiment) == ("waves-trial-1", "waves")


def test_what_a_killed_process_left_is_carried_out_once_and_the_search_is_as_if_nothing_had_happened(tmp_path: Path) -> None:
    whole = carry_on(Sweep(Home(tmp_path / "whole"), spec_with(trials=12)))
    sweep = Sweep(Home(tmp_path / "killed"), spec_with(trials=12))
    tried = carry_on(sweep, 3)
    for _ in range(2):
        with sweep.claimed() as claim:  # left without a result, twice
            assert claim is not None
            assert claim.number == 3
    tried += carry_on(Sweep(sweep.home, sweep.spec))
    assert len(whole) == 12
    assert tried == whole
    assert sweep.done()


def test_a_trial_that_is_being_worked_on_is_nobody_elses(tmp_path: Path) -> None:
    sweep = Sweep(Home(tmp_path), spec_with(trials=2))
    with sweep.claimed() as first, sweep.claimed() as second, sweep.claimed() as third:
        assert first is not None
        assert second is not None
        assert first.number != second.number
        assert third is None
        assert not sweep.done()


def test_a_larger_budget_goes_on_and_another_range_begins_anew(tmp_path: Path) -> None:
    home = Home(tmp_path)
    carry_on(Sweep(home, spec_with()))
    assert len(carry_on(Sweep(home, spec_with(trials=6)))) == 2
    assert len(carry_on(Sweep(home, spec_with(parameters={"train.inner.lr": {"low": 0.5, "high": 1}})))) == 4
    assert Sweep(home, spec_with(trial={"train.iterations": 9})).name != Sweep(home, spec_with()).name


def test_no_trial_begins_when_the_time_is_over(tmp_path: Path) -> None:
    sweep = Sweep(Home(tmp_path), spec_with(trials=None, time="1s"))
    with sweep.claimed() as claim:
        assert claim is not None
        time.sleep(1.1)
        claim.finish(1.0)
    assert carry_on(sweep) == []


@pytest.mark.parametrize(("pruning", "stopped"), [("median", True), ("none", False)])
def test_a_trial_that_falls_behind_is_stopped_if_the_spec_says_so(tmp_path: Path, pruning: str, stopped: bool) -> None:
    sweep = Sweep(Home(tmp_path), spec_with(trials=6, pruning=pruning))
    for index in range(6):
        with sweep.claimed() as claim:
            assert claim is not None
            watch = claim.watch("maml", iterations=20)
            bad = 5.0 if index == 5 else 0.0
            try:
                watch("pretrained", Record(10, "validation_loss", 100.0, 0.0))  # the baseline is not what is judged
                watch("maml", Record(10, "validation_loss", 1.0 + bad, 0.0))
            except StoppedError:
                assert bad
                claim.finish(None)
            else:
                claim.finish(1.0 + bad)
    assert [trial.state.name == "PRUNED" for trial in sweep.finished()] == [False] * 5 + [stopped]


def test_the_best_is_the_least_loss_and_the_figures_show_the_search(tmp_path: Path) -> None:
    sweep = Sweep(Home(tmp_path), spec_with())
    tried = carry_on(sweep)
    best = sweep.best()
    assert best is not None
    assert best.value == min(setting["train.inner.lr"] for setting in tried)
    assert sweep.decoded(best.params) in tried
    sweep.give_up(best)
    assert sweep.best() != best
    sweep.folder.mkdir()
    made = figures(sweep)
    assert [path.name for path in made] == ["history.png", "importance.png", "parallel.png"]
    assert all(path.stat().st_size > 5000 for path in made)
