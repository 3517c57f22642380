"""Two small pipelines whose four stages have been carried out: a regression, and a classification of made-up pictures."""

from typing import Any

import pytest

from metaopt_core.pipeline.execution import Execution
from metaopt_core.pipeline.home import Home
from metaopt_core.pipeline.stages import STAGES
from metaopt_core.pipeline.store import StageOutput
from metaopt_core.spec.pipeline import PipelineSpec
from tasks.evaluate import evaluate
from tasks.generate import generate
from tasks.log import log
from tasks.train import train
from tests.small import SMALL_CONV

BODIES: dict[str, Any] = {"generate": generate, "train": train, "evaluate": evaluate, "log": log}

SINUSOID: dict[str, Any] = {
    "name": "small-sinusoid",
    "generate": {"distribution": "sinusoid", "held_out": {"validation_tasks": 10, "test_tasks": 30}},
    "train": {
        "model": {"name": "mlp"},
        "iterations": 40,
        "shots": 10,
        "queries": 10,
        "validation": {"every": 20, "steps": 3, "shots": 5, "queries": 50},
    },
    "evaluate": {
        "steps": 4,
        "shots": 5,
        "queries": 50,
        "shifted": {"louder": {"amplitude": [5.0, 10.0]}, "families": {"distribution": "mixture", "noise": 0.3}},
    },
}
OMNIGLOT: dict[str, Any] = SMALL_CONV.model_dump(mode="json")
OMNIGLOT["generate"]["characters"]["new_alphabets"] = 20
OMNIGLOT["evaluate"]["shifted"] = {"more-ways": {"ways": 5, "shots": 2}, "new-alphabets": {"alphabets": "new"}}
OMNIGLOT["evaluate"]["over_training"] = True


def run_all(spec: PipelineSpec, home: Home) -> dict[str, StageOutput]:
    outputs: dict[str, StageOutput] = {}
    execution = Execution.of(home, spec)
    for name, identity in execution.identities.items():
        upstream = {stage: outputs[stage] for stage in STAGES[name].upstream}
        outputs[name] = BODIES[name].fn(execution, upstream)
        assert execution.store.get(identity, upstream) == outputs[name]
    return outputs


@pytest.fixture(scope="session", params=["sinusoid", "omniglot"])
def ran(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[PipelineSpec, Home, dict[str, StageOutput]]:
    body = SINUSOID
    if request.param == "omniglot":
        folder = request.getfixturevalue("noise_folder")
        body = OMNIGLOT | {"generate": OMNIGLOT["generate"] | {"folder": str(folder)}}
    spec = PipelineSpec.model_validate(body)
    home = Home(tmp_path_factory.mktemp(request.param))
    return spec, home, run_all(spec, home)
