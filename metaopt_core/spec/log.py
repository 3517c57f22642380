"""`log`: the MLflow run of an execution."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from metaopt_core.spec import addresses
from metaopt_core.spec.base import Spec


def _model_name(name: str) -> str:
    if not re.fullmatch(r"[\w .-]+", name) or not re.search(r"\w", name):
        raise PydanticCustomError("model_name", "expected a name of only letters, digits, spaces and the signs _ . -")
    return name


def _address(address: str) -> str:
    if wrong := addresses.problem(address):
        raise PydanticCustomError("address", "{wrong}", {"wrong": wrong})
    return address


Address = Annotated[str, AfterValidator(_address), WithJsonSchema({"type": "string", "pattern": addresses.PATTERN})]


class LogSpec(Spec):
    """The MLflow run of an execution."""

    tracking_uri: Address | None = Field(
        None,
        description="MLflow server; none means the environment variable MLFLOW_TRACKING_URI, else the embedded store. Without "
        "credentials, which are read from MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN.",
    )
    experiment: str | None = Field(None, min_length=1, description="MLflow experiment; none means the pipeline's name.")
    register_as: Annotated[str, AfterValidator(_model_name)] | None = Field(
        None,
        description="Registered model that gets a version from each run of the pipeline as it is in the file; from a run with "
        "other values only with `--register`. None means no version.",
    )
