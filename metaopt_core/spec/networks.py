"""The networks that a spec may name, their settings, and what follows from these: parameter names, the smallest pictures."""

import fnmatch
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from metaopt_core.spec.base import ImportPath, Positive, Spec, as_tuple


class MLPSpec(Spec):
    """Fully connected network with ReLU between its layers."""

    name: Literal["mlp"] = Field(description="Which network.")
    hidden: Annotated[tuple[Positive, ...], Field(min_length=1), BeforeValidator(as_tuple)] = Field(
        (40, 40), description="Units of each hidden layer."
    )

    @property
    def adaptable(self) -> tuple[str, ...]:
        """Names of the parameters that an inner loop can move."""
        return tuple(f"layer{layer}.{kind}" for layer in range(len(self.hidden) + 1) for kind in ("weight", "bias"))


class PicturesSpec(Spec):
    """What convolutional networks have in common."""

    name: Literal["conv4", "resnet12"] = Field(description="Which network.")

    @model_validator(mode="before")
    @classmethod
    def _renamed(cls, values: Any) -> Any:
        """Accept `batch_norm: transductive`, the former spelling of `normalization: transductive`."""
        if isinstance(values, dict) and values.get("batch_norm") == "transductive":
            kept = {key: value for key, value in values.items() if key != "batch_norm"}
            return {"normalization": "transductive", **kept}
        return values

    normalization: Literal["transductive", "per_step", "group", "layer", "none"] = Field(
        "transductive",
        description="Which statistics normalize: `transductive` is batch norm by those of the current batch, including the query "
        "batch, as in the paper; `per_step` is the same with a scale and a shift for each inner step (MAML++); `group` and "
        "`layer` use those of each example by itself; `none` adds a bias instead.",
    )
    groups: Positive = Field(8, description="Groups of filters, for the normalization `group`.")

    @property
    def normalized_by(self) -> str:
        """The normalization in words, as results state it."""
        return {
            "transductive": "transductive batch norm",
            "per_step": "per-step batch norm, for baselines the same in all steps",
            "group": f"group norm of {self.groups} groups",
            "layer": "layer norm",
            "none": "no normalization",
        }[self.normalization]

    def _of_norm(self, name: str) -> tuple[str, ...]:
        """Names of a normalization's parameters that an inner loop can move, not those of which each step has its own."""
        if self.normalization == "per_step":
            return ()
        return (f"{name}.shift",) if self.normalization == "none" else (f"{name}.scale", f"{name}.shift")


class Conv4Spec(PicturesSpec):
    """Four blocks of 3×3 convolution, normalization and ReLU, then a linear layer (Finn et al. 2017, sections 5.2 and 5.3)."""

    name: Literal["conv4"] = Field(description="Which network.")
    filters: Positive = Field(64, description="Filters of each convolution.")
    pooling: bool = Field(
        False,
        description="False: convolutions with stride 2, as in the paper for Omniglot. True: stride 1, then 2×2 max-pooling, as in "
        "the paper for natural pictures, with 32 filters.",
    )

    @property
    def every_width(self) -> tuple[int, ...]:
        return (self.filters,)

    @property
    def halvings(self) -> int:
        """How often 2×2 pooling halves a picture."""
        return 4 if self.pooling else 0

    @property
    def adaptable(self) -> tuple[str, ...]:
        """Names of the parameters that an inner loop can move."""
        convolutions = tuple(f"conv{block}.weight" for block in range(4))
        norms = tuple(name for block in range(4) for name in self._of_norm(f"norm{block}"))
        return *convolutions, "linear.weight", *norms, "linear.bias"


class ResNet12Spec(PicturesSpec):
    """ResNet-12: residual blocks of three 3×3 convolutions, each block followed by 2×2 max-pooling (Lee et al. 2019)."""

    name: Literal["resnet12"] = Field(description="Which network.")
    widths: Annotated[tuple[Positive, ...], Field(min_length=1), BeforeValidator(as_tuple)] = Field(
        (64, 128, 256, 512), description="Filters of each block's convolutions."
    )

    @property
    def every_width(self) -> tuple[int, ...]:
        return self.widths

    @property
    def halvings(self) -> int:
        """How often 2×2 pooling halves a picture."""
        return len(self.widths)

    @property
    def adaptable(self) -> tuple[str, ...]:
        """Names of the parameters that an inner loop can move."""
        names: list[str] = []
        norms: list[str] = []
        for block in range(len(self.widths)):
            names += [*(f"block{block}.conv{layer}.weight" for layer in range(3)), f"block{block}.shortcut.weight"]
            norms += [name for layer in ("0", "1", "2", "_shortcut") for name in self._of_norm(f"block{block}.norm{layer}")]
        return *names, "linear.weight", *norms, "linear.bias"


class ModuleSpec(Spec):
    """The user's torch.nn.Module. Its class takes `outputs`, their number, by name, and optionally `input_shape`."""

    name: Literal["module"] = Field(description="Which network.")
    path: ImportPath = Field(
        description="Import path of its class, as in mypackage.nets:Net, beside the pipelines file or on Python's path."
    )
    arguments: dict[str, Any] = Field({}, description="Further arguments of the class, by name.")


def too_small(model: Conv4Spec | ResNet12Spec, height: int, width: int) -> str | None:
    """Why pictures of a size are too small for a network; none if they aren't."""
    smallest = 2**model.halvings
    if min(height, width) >= smallest:
        return None
    return (
        f"{model.halvings} times 2×2 pooling leave nothing of pictures of {height}×{width}: expected at least {smallest}×{smallest}"
    )


def unknown_parameter(wanted: Iterable[str], names: Iterable[str]) -> str | None:
    """The message for a pattern that matches no parameter's name; none if all match."""
    names = list(names)
    for pattern in wanted:
        if not fnmatch.filter(names, pattern):
            shown = names if len(names) <= _MOST_NAMES else [*names[: _MOST_NAMES - 2], "…", *names[-2:]]
            return f"{pattern} is the name of no parameter: expected some of {', '.join(shown)}"
    return None


_MOST_NAMES = 16  # in a message

ModelSpec = Annotated[MLPSpec | Conv4Spec | ResNet12Spec | ModuleSpec, Field(discriminator="name")]
