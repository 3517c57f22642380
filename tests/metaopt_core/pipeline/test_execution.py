"""An execution knows its stages' identities, and is recorded under its pipeline and its last stage's fingerprint."""

from pathlib import Path

from metaopt_core.pipeline.execution import Execution
from metaopt_core.pipeline.home import Home
from metaopt_core.pipeline.stages import STAGES
from metaopt_core.spec.pipeline import PipelineSpec


def execution(home: Path, **changes: object) -> Execution:
    train = {"model": {"name": "mlp"}, "iterations": 6, "shots": 5, "queries": 5}
    values = {"name": "waves", "generate": {"distribution": "sinusoid"}, "train": train} | changes
    return Execution.of(Home(home), PipelineSpec.model_validate(values))


def test_it_has_the_identity_of_every_stage_and_the_key_of_the_last(tmp_path: Path) -> None:
    one = execution(tmp_path)
    assert list(one.identities) == list(STAGES)
    assert one.fingerprint == one.identities["log"].fingerprint
    assert one.key == f"waves-{one.fingerprint}"
    assert one.store.folder(one.identities["log"]) == tmp_path / "outputs" / "log" / one.fingerprint


def test_its_key_follows_what_results_depend_on_and_nothing_else(tmp_path: Path) -> None:
    one = execution(tmp_path)
    assert execution(tmp_path, description="said otherwise", device="cpu").key == one.key
    assert execution(tmp_path, seed=1).key != one.key
