"""`generate`: a shipped distribution, chosen by name, or the user's own, by import path."""

from typing import TYPE_CHECKING, Annotated, Any, Union

from pydantic import Field, SerializeAsAny, ValidationError, ValidatorFunctionWrapHandler, WrapValidator
from pydantic_core import PydanticCustomError

from metaopt_core.spec import components
from metaopt_core.spec.base import impossible, is_import_path, problems_of
from metaopt_core.spec.distribution import DistributionSpec


def shipped() -> tuple[type[DistributionSpec], ...]:
    """The specs of all distributions that ship."""
    return tuple(components.known(components.DISTRIBUTIONS, DistributionSpec).values())


def _resolved(value: Any, validated: ValidatorFunctionWrapHandler) -> Any:
    """The user's distribution if an import path is given, else a shipped one."""
    if isinstance(value, DistributionSpec) and is_import_path(value.distribution):
        return value
    if not (isinstance(value, dict) and is_import_path(value.get("distribution"))):
        return validated(value)
    try:
        kind = components.imported(value["distribution"], DistributionSpec)
        return kind.model_validate(value)
    except PydanticCustomError as error:
        raise impossible([(("generate", "distribution"), error.message())]) from None
    except ValidationError as error:
        raise impossible(list(problems_of(error, kind, ("generate",)))) from None


if TYPE_CHECKING:
    GenerateSpec = DistributionSpec
else:
    GenerateSpec = Annotated[Union[shipped()], Field(discriminator="distribution"), WrapValidator(_resolved), SerializeAsAny()]  # noqa: UP007
