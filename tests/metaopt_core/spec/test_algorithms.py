"""An algorithm's name stands for choices, and what is chosen itself goes before."""

from typing import Any

import pytest

from metaopt_core.spec.networks import Conv4Spec, ResNet12Spec
from metaopt_core.spec.train import ALGORITHMS, TrainSpec

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
