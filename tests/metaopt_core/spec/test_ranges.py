# ruff: noqa: E501
"""What a sweep may search: checked value by value, by the rules of the spec, before anything runs."""

from pathlib import Path

import pytest

from metaopt_core.spec.loader import SpecError, load
from metaopt_core.spec.ranges import value_at, with_values

FILE = """\
pipelines:
  waves:
    generate: {distribution: sinusoid}
    train: {model: {name: mlp}, iterations: 100, shots: 5, queries: 10}
    sweep:
      trials: 3
      parameters:
        train.inner.lr: {low: 0.001, high: 1, log: true}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def complaints(line: str) -> list[str]:
    """What is said of a file with one line more (or instead of `trials: 3`), without the place."""
    text = FILE.replace("      trials: 3\n", line) if line.startswith("      ") and line[6] != " " else FILE + line
    Path("pipelines.yaml").write_text(text)
    with pytest.raises(SpecError) as error:
        load(Path("pipelines.yaml"))
    return [str(mistake).split(": waves.sweep.", 1)[1] for mistake in error.value.mistakes]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("train.iner.lr: {low: 1, high: 2}", "parameters.train.iner: unknown key, did you mean inner?"),
        ("train.inner.steps: {low: 0, high: 2}", "parameters.train.inner.steps.low: expected a whole number of at least 1, found 0"),
        ("train.inner.steps: {low: 1, high: 2.5}", "parameters.train.inner.steps.high: expected a whole number of at least 1, found 2.5"),
        ("train.outer.schedule: {choices: [constant, cosin]}", "parameters.train.outer.schedule.choices[1]: expected constant or cosine, found \"cosin\", did you mean cosine?"),
        ("train.model.hidden: {choices: [[8], [0]]}", "parameters.train.model.hidden.choices[1]: train.model.hidden[0]: expected a whole number of at least 1, found 0"),
        ("train.outer.lr: {low: 2, high: 1}", "parameters.train.outer.lr: expected low to be less than high, and greater than 0 if log is true, found a mapping with low, high"),
        ("train.outer.lr: {low: 0.1, choices: [1, 2]}", "parameters.train.outer.lr: expected a mapping with either low and high, or choices, found a mapping with low, choices"),
        ("log.experiment: {choices: [a, b]}", "parameters.log.experiment: no key that the objective depends on, expected one of generate, train or evaluate, as in train.inner.lr"),
        ("trian.shots: {low: 1, high: 2}", "parameters.trian.shots: no key that the objective depends on, did you mean train?"),
    ],
)  # fmt: skip
def test_a_value_that_its_key_would_not_take_is_named_with_its_place(line: str, complaint: str) -> None:
    assert complaints(f"        {line}\n") == [complaint.replace("train.iner:", "train.iner.lr:")]


def test_a_combination_that_only_the_middle_of_a_range_breaks_is_found() -> None:
    found = complaints("        generate.held_out.test_tasks: {low: 1, high: 5}\n        train.shots: {low: 19, high: 40}\n")
    assert [line.partition(":")[0] for line in found] == ["parameters.train.shots.high"]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("      pruning: none\n", "expected trials or time, or both"),
        ("      time: soon\n", "time: expected a whole number and s, m, h or d"),
        ("      trials: 3\n      objective: {metric: accuracy}\n", "objective.metric: accuracy needs classes"),
        ("      trials: 3\n      objective: {steps: 11}\n", "objective.steps: 11 steps, but evaluate goes to 10"),
        ("      trials: 3\n      trial: {train.inner.lr: 0.1}\n", "trial.train.inner.lr: searched under sweep.parameters"),
        ("      trials: 3\n      trial: {train.iterations: 0}\n", "trial.train.iterations: expected a whole number of at least 1"),
    ],
)
def test_a_search_without_sense_is_refused(line: str, complaint: str) -> None:
    Path("pipelines.yaml").write_text(FILE.replace("      trials: 3\n", line))
    with pytest.raises(SpecError, match=complaint):
        load(Path("pipelines.yaml"))


def test_values_are_put_in_place_and_checked() -> None:
    Path("pipelines.yaml").write_text(FILE)
    spec = load(Path("pipelines.yaml"))["waves"]
    changed = with_values(spec, {"train.inner.steps": 3, "train.model": {"name": "mlp", "hidden": [4]}}, name="other")
    assert (changed.name, changed.train.inner.steps, changed.train.model.hidden, changed.sweep) == ("other", 3, (4,), None)  # type: ignore[union-attr]
    assert value_at(changed, "train.model.hidden") == [4]
    assert value_at(changed, "train.nothing.there") is None
