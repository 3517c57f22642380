"""Which networks a spec may name, and their settings."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from metaopt_core.spec.base import ImportPath, Positive, Spec, as_tuple


class MLPSpec(Spec):
    """Fully connected network with ReLU between its layers."""

    name: Literal["mlp"] = Field(description="Which network.")
    hidden: Annotated[tuple[Positive, ...], Field(min_length=1), BeforeValidator(as_tuple)] = Field(
        (40, 40), description="Units of each hidden layer."
    )


class PicturesSpec(Spec):
    """What convolutional networks have in common."""

    name: Literal["conv4", "resnet12"] = Field(description="Which network.")

    @model_validator(mode="before")
    @classmethod
    def _renamed(cls, values: Any) -> Any:
        """`batch_norm: transductive` is how `normalization: transductive` used to be written."""
        if isinstance(values, dict) and values.get("batch_norm") == "transductive":
            kept = {key: value for key, value in values.items() if key != "batch_norm"}
            return {"normalization": "transductive", **kept}
        return values

    normalization: Literal["transductive", "per_step", "group", "layer", "none"] = Field(
        "transductive",
        description="Whose statistics normalize: `transductive` is batch norm by those of the current batch, the query batch "
        "included, as in the paper; `per_step` is the same with a scale and a shift for each inner step (MAML++); `group` and "
        "`layer` are by those of each example alone; `none` adds a bias instead.",
    )
    groups: Positive = Field(8, description="Groups of filters, for the normalization `group`.")

    @property
    def normalized_by(self) -> str:
        """The normalization in words, as results state it."""
        return {
            "transductive": "transductive batch norm",
            "per_step": "per-step batch norm, of baselines the same in all steps",
            "group": f"group norm of {self.groups} groups",
            "layer": "layer norm",
            "none": "no normalization",
        }[self.normalization]


class Conv4Spec(PicturesSpec):
    """Four blocks of 3×3 convolution, normalization and ReLU, then a linear layer (Finn et al. 2017, sections 5.2 and 5.3)."""

    name: Literal["conv4"] = Field(description="Which network.")
    filters: Positive = Field(64, description="Filters of each convolution.")
    pooling: bool = Field(
        False,
        description="False: convolutions with stride 2, as the paper has it for Omniglot. True: with stride 1, then 2×2 "
        "max-pooling, as it has it for natural pictures, with 32 filters.",
    )

    @property
    def every_width(self) -> tuple[int, ...]:
        return (self.filters,)


class ResNet12Spec(PicturesSpec):
    """ResNet-12: residual blocks of three 3×3 convolutions, each block followed by 2×2 max-pooling (Lee et al. 2019)."""

    name: Literal["resnet12"] = Field(description="Which network.")
    widths: Annotated[tuple[Positive, ...], Field(min_length=1), BeforeValidator(as_tuple)] = Field(
        (64, 128, 256, 512), description="Filters of each block's convolutions."
    )

    @property
    def every_width(self) -> tuple[int, ...]:
        return self.widths


class ModuleSpec(Spec):
    """A custom torch.nn.Module, the user's. Its class takes `outputs` by name, their number, and `input_shape` if it wants to."""

    name: Literal["module"] = Field(description="Which network.")
    path: ImportPath = Field(
        description="Where its class is imported from, as in mypackage.nets:Net; beside the pipelines file, or on Python's path."
    )
    arguments: dict[str, Any] = Field({}, description="Further arguments of the class, by name.")


ModelSpec = Annotated[MLPSpec | Conv4Spec | ResNet12Spec | ModuleSpec, Field(discriminator="name")]
