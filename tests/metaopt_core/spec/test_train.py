"""An algorithm's name stands for choices, and what is chosen itself goes before."""

from pathlib import Path
from typing import Any

import pytest

from metaopt_core.spec.loader import SpecError, load
from metaopt_core.spec.networks import Conv4Spec, ResNet12Spec
from metaopt_core.spec.ranges import with_values
from metaopt_core.spec.train import ALGORITHMS, InnerSpec, TrainSpec

TRAIN: dict[str, Any] = {"model": {"name": "mlp"}, "iterations": 10, "shots": 5, "queries": 5}


def chosen(**values: Any) -> dict[str, Any]:
    train = TrainSpec.model_validate(TRAIN | values).model_dump()
    return {
        "meta_gradient": train["meta_gradient"],
        "outer_loss": train["outer_loss"],
        "schedule": train["outer"]["schedule"],
        "adapts": train["inner"]["adapts"],
        "learned_lr": train["inner"]["learned_lr"],
    }


PLAIN = {"meta_gradient": "exact", "outer_loss": "last_step", "schedule": "constant", "adapts": "all", "learned_lr": "none"}


@pytest.mark.parametrize(
    ("name", "differs"),
    [
        ("maml", {}),
        ("fomaml", {"meta_gradient": "first_order"}),
        ("reptile", {"meta_gradient": "reptile"}),
        ("anil", {"adapts": "head"}),
        ("boil", {"adapts": "body"}),
        ("meta-sgd", {"learned_lr": "per_parameter"}),
        ("maml++", {"outer_loss": "multi_step", "schedule": "cosine", "learned_lr": "per_layer_and_step"}),
        ("imaml", {"meta_gradient": "implicit"}),
    ],
)
def test_a_name_stands_for_its_choices(name: str, differs: dict[str, str]) -> None:
    assert name in ALGORITHMS
    assert chosen(algorithm=name) == PLAIN | differs


def test_a_choice_of_ones_own_goes_before() -> None:
    train = TrainSpec.model_validate(
        TRAIN | {"algorithm": "maml++", "inner": {"lr": 0.1, "learned_lr": "scalar"}, "outer": {"lr": 0.01}}
    )
    assert (train.inner.lr, train.inner.learned_lr, train.outer_loss) == (0.1, "scalar", "multi_step")
    assert (train.outer.lr, train.outer.schedule) == (0.01, "cosine")


@pytest.mark.parametrize(
    ("model", "normalization"),
    [
        ({"name": "conv4"}, "per_step"),
        ({"name": "resnet12"}, "per_step"),
        ({"name": "conv4", "normalization": "group"}, "group"),
        ({"name": "conv4", "batch_norm": "transductive"}, "transductive"),
    ],
)
def test_maml_plus_plus_normalizes_every_step_by_itself_unless_told_otherwise(model: dict[str, Any], normalization: str) -> None:
    found = TrainSpec.model_validate(TRAIN | {"algorithm": "maml++", "model": model}).model
    assert isinstance(found, Conv4Spec | ResNet12Spec)
    assert found.normalization == normalization


def test_what_was_filled_in_reads_back_as_it_is() -> None:
    train = TrainSpec.model_validate(TRAIN | {"algorithm": "anil"})
    assert TrainSpec.model_validate_json(train.model_dump_json()) == train


def test_what_a_name_filled_in_was_not_said_and_goes_when_the_name_does() -> None:
    model = {"name": "conv4", "filters": 8}
    values = TRAIN | {"model": model, "algorithm": "maml++", "inner": {"lr": 0.1}, "outer": {"schedule": "cosine"}}
    train = TrainSpec.model_validate(values)
    assert train.model_dump(exclude_unset=True) == values
    other = TrainSpec.model_validate(train.model_dump(exclude_unset=True) | {"algorithm": "anil"})
    assert (other.inner.adapts, other.inner.learned_lr, other.outer_loss) == ("head", "none", "last_step")
    assert (other.outer.schedule, other.first_order_share) == ("cosine", 0.0)
    assert isinstance(other.model, Conv4Spec)
    assert other.model.normalization == "transductive"


@pytest.mark.parametrize(
    ("meta_gradient", "label"), [("exact", "MAML"), ("first_order", "FOMAML"), ("reptile", "Reptile"), ("implicit", "iMAML")]
)
def test_a_meta_gradient_is_called_by_its_name_however_it_was_chosen(meta_gradient: str, label: str) -> None:
    for algorithm in ("maml", "fomaml", "reptile"):
        assert TrainSpec.model_validate(TRAIN | {"algorithm": algorithm, "meta_gradient": meta_gradient}).label == label


FILE = """pipelines:
  base:
    generate: {distribution: sinusoid}
    train:
      model: {name: mlp}
      iterations: 10
      shots: 5
      queries: 5
      inner: {lr: 0.02, steps: 1}
      validation: {steps: 10}
  other:
    extends: base
    train: {algorithm: "maml++"}
  own:
    extends: base
    train: {algorithm: "maml++", inner: {steps: 2}}
  same:
    extends: base
    train: {algorithm: maml}
"""


@pytest.mark.parametrize(
    ("name", "options", "steps", "horizon"),
    [
        ("base", (), 1, 10),
        ("other", (), 3, 3),
        ("own", (), 2, 2),
        ("same", (), 1, 10),
        ("base", ("train.algorithm=meta-sgd",), 1, 1),
        ("base", ("train.algorithm=anil",), 5, 10),
        ("base", ("train.algorithm=anil", "train.inner.steps=2"), 2, 10),
        ("other", ("train.algorithm=maml",), 1, 10),
    ],
)
def test_naming_another_algorithm_replaces_what_it_stands_for_in_the_layers_below(
    name: str, options: tuple[str, ...], steps: int, horizon: int, tmp_path: Path
) -> None:
    file = tmp_path / "pipelines.yaml"
    file.write_text(FILE)
    spec = load(file, {name: options} if options else {})[name]
    assert (spec.train.inner.steps, spec.horizon) == (steps, horizon)
    assert spec.train.inner.lr == 0.02  # no algorithm stands for a step size, which belongs to the tasks


def test_a_sweep_over_algorithms_tries_each_with_what_belongs_to_it(tmp_path: Path) -> None:
    file = tmp_path / "pipelines.yaml"
    file.write_text(FILE)
    spec = load(file)["base"]
    tried = with_values(spec, {"train.algorithm": "maml++"})
    assert (tried.train.inner.steps, tried.horizon) == (3, 3)
    assert with_values(spec, {"train.algorithm": "maml++", "train.inner.steps": 4}).train.inner.steps == 4


def test_a_name_fills_in_models_that_were_made_in_python() -> None:
    train = TrainSpec(
        model=Conv4Spec(name="conv4", filters=8),
        iterations=10,
        ways=5,
        shots=1,
        queries=1,
        algorithm="maml++",
        inner=InnerSpec(lr=0.1, learned_lr="scalar"),
    )
    assert (train.inner.lr, train.inner.learned_lr, train.inner.steps) == (0.1, "scalar", 3)
    assert isinstance(train.model, Conv4Spec)
    assert (train.model.filters, train.model.normalization) == (8, "per_step")
    assert "steps" not in train.inner.model_fields_set


def test_a_horizon_that_learned_step_sizes_do_not_fit_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "pipelines.yaml"
    file.write_text(FILE)
    with pytest.raises(SpecError, match=r"train\.validation\.steps: 10 steps, but step sizes are learned for 1: expected at most"):
        load(file, {"base": ("train.inner.learned_lr=per_parameter",)})
    load(file, {"base": ("train.inner.learned_lr=per_parameter", "train.inner.lr_bounds=[0.001, 0.1]")})
