"""A stage is tried again if MLflow could not be reached, and for nothing else."""

import pytest
from prefect.states import Failed

from metaopt_core.errors import UserError
from metaopt_core.tracking.connection import UnreachableError
from tasks.retrying import mlflow_was_away
from tasks.train import train


@pytest.mark.parametrize(
    ("error", "again"), [(UnreachableError("away"), True), (UserError("wrong"), False), (ConnectionError("elsewhere"), False)]
)
def test_only_an_mlflow_server_that_was_away_is_tried_again(error: Exception, again: bool) -> None:
    assert train.retry_condition_fn is mlflow_was_away
    assert mlflow_was_away(train, None, Failed(data=error)) is again  # type: ignore[arg-type]
