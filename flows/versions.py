"""Which runs from Prefect's page add a version of the registered model: those of a pipeline as it is served."""

import json

from prefect import runtime
from prefect.client.orchestration import get_client

from flows.planning import unless_tried_out
from metaopt_core.spec.pipeline import PipelineSpec


def as_served(spec: PipelineSpec) -> PipelineSpec:
    """The spec of this flow run, without `register_as` if other values were changed on Prefect's page.

    A run without a deployment was started from Python, and its spec is used as it is.
    """
    if runtime.deployment.id is None or runtime.flow_run.parent_flow_run_id is not None:
        return spec
    with get_client(sync_client=True) as client:
        served = client.read_deployment(runtime.deployment.id).parameters.get("spec")
    return spec if served is None else unless_tried_out(spec, PipelineSpec.model_validate_json(json.dumps(served)))
