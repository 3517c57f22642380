"""What a spec says of its network without PyTorch: parameters' names, the smallest pictures, and how it used to be written."""

import pytest

from metaopt_core.spec.networks import Conv4Spec, MLPSpec, ResNet12Spec, too_small, unknown_parameter


def test_a_perceptron_has_a_weight_and_a_bias_for_each_layer() -> None:
    expected = ("layer0.weight", "layer0.bias", "layer1.weight", "layer1.bias", "layer2.weight", "layer2.bias")
    assert MLPSpec(name="mlp", hidden=(3, 4)).adaptable == expected


def test_what_each_step_has_its_own_of_does_not_adapt() -> None:
    shared, own = (Conv4Spec(name="conv4", normalization=kind) for kind in ("transductive", "per_step"))
    assert set(shared.adaptable) - set(own.adaptable) == {
        f"norm{block}.{kind}" for block in range(4) for kind in ("scale", "shift")
    }
    unnormalized = ResNet12Spec(name="resnet12", widths=(2,), normalization="none").adaptable
    assert [name for name in unnormalized if "norm" in name] == [
        f"block0.norm{layer}.shift" for layer in ("0", "1", "2", "_shortcut")
    ]


@pytest.mark.parametrize(
    ("model", "height", "width", "expected"),
    [
        (Conv4Spec(name="conv4"), 1, 1, None),
        (Conv4Spec(name="conv4", pooling=True), 16, 16, None),
        (
            Conv4Spec(name="conv4", pooling=True),
            16,
            15,
            "4 times 2×2 pooling leave nothing of pictures of 16×15: expected at least 16×16",
        ),
        (ResNet12Spec(name="resnet12", widths=(4, 4)), 4, 3, "2 times 2×2 pooling leave nothing of pictures of 4×3"),
    ],
)
def test_pictures_have_to_outlast_the_pooling(
    model: Conv4Spec | ResNet12Spec, height: int, width: int, expected: str | None
) -> None:
    found = too_small(model, height, width)
    assert found is None if expected is None else str(found).startswith(expected)


def test_a_pattern_that_names_no_parameter_is_answered_with_those_that_there_are() -> None:
    names = MLPSpec(name="mlp", hidden=(3,)).adaptable
    assert unknown_parameter(["layer1.*", "*.bias"], names) is None
    assert unknown_parameter(["layer2.*"], names) == (
        "layer2.* is the name of no parameter: expected some of layer0.weight, layer0.bias, layer1.weight, layer1.bias"
    )
    many = str(unknown_parameter(["x"], ResNet12Spec(name="resnet12").adaptable))
    assert "…" in many
    assert many.endswith("linear.bias")


def test_the_normalization_reads_as_it_used_to_be_written() -> None:
    assert Conv4Spec.model_validate({"name": "conv4", "batch_norm": "transductive"}) == Conv4Spec(name="conv4")


@pytest.mark.parametrize(("kind", "said"), [("group", "group norm of 4 groups"), ("none", "no normalization")])
def test_results_state_the_normalization_in_words(kind: str, said: str) -> None:
    assert Conv4Spec.model_validate({"name": "conv4", "normalization": kind, "groups": 4}).normalized_by == said
