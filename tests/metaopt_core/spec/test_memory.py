"""What no machine has the memory for is refused from the spec alone."""

import re
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from metaopt_core.networks.build import build
from metaopt_core.spec.memory import weights
from metaopt_core.spec.networks import ModelSpec
from metaopt_core.spec.pipeline import PipelineSpec

LARGE = 10**9
WIDE = {"distribution": "sinusoid", "support_points": 1000}


def _body(model: dict[str, Any] | None = None, inner: dict[str, Any] | None = None, **train: Any) -> dict[str, Any]:
    settings = {"model": model or {"name": "mlp"}, "inner": inner or {}, "iterations": 50, "shots": 5, "queries": 7}
    return {"name": "waves", "generate": {"distribution": "sinusoid"}, "train": settings | train}


@pytest.mark.parametrize(
    ("body", "key", "message"),
    [
        (
            _body(model={"name": "mlp", "hidden": [LARGE, LARGE]}),
            "train.model.hidden",
            "1,000,000,002,000,000,000 parameters, of which training holds 6 copies:",
        ),
        (
            _body(inner={"steps": LARGE}),
            "train.inner.steps",
            "the exact meta-gradient holds 1,680 parameters after each of 1,000,000,000 steps:",
        ),
        (
            _body(meta_batch_size=LARGE, shots=1000, queries=1000) | {"generate": WIDE},
            "train.meta_batch_size",
            "the examples of 1,000,000,000 tasks:",
        ),
        (
            _body() | {"evaluate": {"steps": LARGE}},
            "evaluate.steps",
            "the losses of 1,000 tasks after each of 1,000,000,000 steps:",
        ),
    ],
    ids=["width", "inner steps", "meta-batch", "evaluated steps"],
)  # fmt: skip
def test_sizes_beyond_any_machine_are_refused_with_what_they_need(body: dict[str, Any], key: str, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        PipelineSpec.model_validate(body)
    (said,) = [text for path, text in caught.value.errors()[0]["ctx"]["problems"] if path == tuple(key.split("."))]
    assert re.fullmatch(f"{re.escape(message)} [0-9,]+ GiB at least, expected at most 32", said)


def test_a_first_order_gradient_holds_no_steps() -> None:
    PipelineSpec.model_validate(_body(inner={"steps": LARGE}, algorithm="fomaml"))


@pytest.mark.parametrize(
    "model",
    [
        {"name": "mlp", "hidden": [7, 5]},
        {"name": "conv4", "filters": 6},
        {"name": "resnet12", "widths": [4, 6]},
    ],
    ids=lambda model: model["name"],
)
def test_the_weights_of_a_network_are_counted_as_it_has_them(model: dict[str, Any]) -> None:
    spec: ModelSpec = TypeAdapter(ModelSpec).validate_python(model)
    parameters = build(spec, (3, 16, 16), 5).init(0)
    assert weights(spec, (3, 16, 16), 5) == sum(value.numel() for name, value in parameters.items() if name.endswith("weight"))
