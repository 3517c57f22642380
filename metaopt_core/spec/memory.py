"""The memory that a pipeline needs at least, computed from its spec alone, so that `plan` refuses what no machine has.

These are lower bounds: they count only what is certainly held in memory at once.
"""

import math
from collections.abc import Iterator
from itertools import pairwise

from metaopt_core.spec.base import Impossibility
from metaopt_core.spec.networks import Conv4Spec, MLPSpec, ModelSpec, ResNet12Spec
from metaopt_core.spec.resolved import Resolved

MOST_BYTES = 2**35
"""32 GiB: the networks that ship learn from a few examples, and are a thousandth of that."""

_BYTES = 4  # of a float32
_COPIES = 6  # of the parameters in training: themselves, their gradient, Adam's two means; a task's own, and their gradient


def shortages(spec: Resolved) -> Iterator[Impossibility]:
    """What needs more than MOST_BYTES, each with the key that makes it so."""
    train, shape = spec.train, spec.generate.shape
    inputs = shape.input_shape if shape is not None else (1,)
    outputs = shape.outputs_for(train.ways) if shape is not None else train.ways or 1
    size = _BYTES * weights(train.model, inputs, outputs)
    width = {"mlp": "hidden", "conv4": "filters", "resnet12": "widths"}.get(train.model.name)
    if width is not None and size * _COPIES > MOST_BYTES:
        yield (
            ("train", "model", width),
            f"{size // _BYTES:,} parameters, of which training holds {_COPIES} copies: {_needs(size * _COPIES)}",
        )
    elif train.meta_gradient == "exact" and size * train.inner.steps > MOST_BYTES:
        yield (
            ("train", "inner", "steps"),
            f"the exact meta-gradient holds {size // _BYTES:,} parameters after each of {train.inner.steps:,} steps: "
            f"{_needs(size * train.inner.steps)}",
        )
    task = _BYTES * (train.most_shots + train.queries) * (train.ways or 1) * math.prod(inputs)
    if task > MOST_BYTES:
        yield ("train", "shots"), f"the examples of one task: {_needs(task)}"
    elif task * train.meta_batch_size > MOST_BYTES:
        yield (
            ("train", "meta_batch_size"),
            f"the examples of {train.meta_batch_size:,} tasks: {_needs(task * train.meta_batch_size)}",
        )
    tasks, steps = spec.generate.held_out.test_tasks, spec.evaluate.steps
    results = 8 * tasks * len(spec.methods) * (steps + 1)
    if results > MOST_BYTES:
        yield ("evaluate", "steps"), f"the losses of {tasks:,} tasks after each of {steps:,} steps: {_needs(results)}"


def weights(model: ModelSpec, inputs: tuple[int, ...], outputs: int) -> int:
    """The number of a network's weights, without biases and normalization; 0 for a custom network."""
    match model:
        case MLPSpec():
            return sum(before * after for before, after in pairwise((math.prod(inputs), *model.hidden, outputs)))
        case Conv4Spec():
            return 9 * model.filters * (inputs[0] + 3 * model.filters) + model.filters * outputs
        case ResNet12Spec():
            blocks = pairwise((inputs[0], *model.widths))
            return sum(10 * before * after + 18 * after**2 for before, after in blocks) + model.widths[-1] * outputs
    return 0


def _needs(size: int) -> str:
    return f"{size / 2**30:,.0f} GiB at least, expected at most {MOST_BYTES >> 30}"
