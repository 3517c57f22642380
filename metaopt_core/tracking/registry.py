"""The logged model of a run, and its versions in the registry: each is looked up first, so that it is made only once."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaopt_core.methods.contract import parameters_file
from metaopt_core.pipeline.store import StageOutput
from metaopt_core.spec.distribution import TaskShape
from metaopt_core.spec.pipeline import PipelineSpec
from metaopt_core.tracking.runs import EXECUTION, Run

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel

MODEL_NAME = "learner"


def log_model(
    run: Run, spec: PipelineSpec, generated: StageOutput, trained: StageOutput, summary: Mapping[str, Any] | None = None
) -> str:
    """The id of the run's logged model, which is made and filled if necessary."""
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    model = _logged_model(run)
    if model is None:
        model = run.client.create_logged_model(
            run.experiment_id, MODEL_NAME, run.id, tags={EXECUTION: run.execution}, model_type=spec.train.model.name
        )
    if model.status != LoggedModelStatus.READY:
        from metaopt_core.tracking.saving import method_of, save  # its import takes seconds

        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / MODEL_NAME
            shape = TaskShape.from_json(json.loads((generated / "shape.json").read_text()))
            key = summary["model"] if summary else spec.model_method
            method = method_of(spec, key)
            own = spec.learned if method.of_model else method  # a way to adapt the pipeline's own parameters has none of its own
            parameters = trained / parameters_file(spec, own)
            lr = summary["methods"][key]["inner_lr"] if summary else None
            save(spec, shape, parameters, folder, run.id, model.model_id, key, lr)
            run.client.log_model_artifacts(model.model_id, str(folder))
        run.client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    outputs = run.client.get_run(run.id).outputs
    if not outputs or model.model_id not in {output.model_id for output in outputs.model_outputs}:
        run.client.log_outputs(run.id, [LoggedModelOutput(model.model_id, step=0)])
    return str(model.model_id)


def _logged_model(run: Run) -> "LoggedModel | None":
    found = run.client.search_logged_models([run.experiment_id], f"source_run_id = '{run.id}' AND name = '{MODEL_NAME}'")
    return found[0] if found else None


def register(run: Run, spec: PipelineSpec, model_id: str) -> int:
    """The number of the registered version of this execution's model, which is made if necessary."""
    from mlflow.exceptions import MlflowException

    name = spec.log.register_as
    assert name is not None
    found = run.client.search_model_versions(f"name = '{name}' AND tags.`{EXECUTION}` = '{run.execution}'")
    if found:
        return int(found[0].version)
    try:
        run.client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    model = run.client.get_logged_model(model_id)
    version = run.client.create_model_version(
        name,
        model.artifact_location,
        run.id,
        tags={EXECUTION: run.execution},
        description=spec.description,
        model_id=model_id,
        await_creation_for=0,
    )
    return int(version.version)
