"""What train publishes."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from metaopt_core.errors import UserError
from metaopt_core.pipeline.execution import Execution
from metaopt_core.pipeline.home import Home
from metaopt_core.pipeline.store import StageOutput
from metaopt_core.spec.pipeline import PipelineSpec
from tasks.generate import generate
from tasks.train import train
from tests.metaopt_core.distributions.pictures.conftest import pictures, written
from tests.metaopt_core.distributions.pictures.test_sources import SPLIT
from tests.tasks.ran import BASELINES


def test_the_history_ends_where_training_did(ran: tuple[PipelineSpec, Home, dict[str, StageOutput]]) -> None:
    spec, _, outputs = ran
    history = pd.read_parquet(outputs["train"] / "history.parquet")
    phases = ("maml", *BASELINES[bool(spec.train.ways)])
    assert history.groupby("phase")["iteration"].max().to_dict() == dict.fromkeys(phases, spec.train.iterations)
    assert {"loss", "validation_loss", "meta_train_loss"} <= set(history["name"])
    assert np.isfinite(history["value"]).all()


def test_the_parameters_are_those_of_the_best_validation(ran: tuple[PipelineSpec, Home, dict[str, StageOutput]]) -> None:
    _, _, outputs = ran
    trained = outputs["train"]
    history = pd.read_parquet(trained / "history.parquet").query("phase == 'maml' and name == 'validation_loss'")
    best = history.sort_values("value")["iteration"].tolist()[0]
    assert trained.extra["best_iteration"] == best
    kept, then = (load_file(trained / name) for name in ("parameters.safetensors", f"snapshots/{best}.safetensors"))
    assert kept.keys() == then.keys()
    assert all(np.array_equal(kept[name], then[name]) for name in kept)


def test_it_says_what_the_time_went_to_in_each_phase(ran: tuple[PipelineSpec, Home, dict[str, StageOutput]]) -> None:
    spec, _, outputs = ran
    extra = outputs["train"].extra
    phases = {"maml", *BASELINES[bool(spec.train.ways)]}
    assert set(extra["seconds_by_phase"]) == set(extra["iterations_by_phase"]) == set(extra["time_shares"]) == phases
    assert all(0.5 < sum(shares.values()) <= 1 for shares in extra["time_shares"].values())


def test_what_evaluation_would_stop_at_is_said_before_training(tmp_path: Path) -> None:
    root = written(tmp_path / "root", pictures())
    spec = PipelineSpec.model_validate(
        {
            "name": "few",
            "generate": {"distribution": "pictures", "path": str(root), "size": 8, "held_out_ways": 2, "split": SPLIT},
            "train": {"model": {"name": "conv4"}, "iterations": 10**6, "ways": 2, "shots": 1, "queries": 1},
            "evaluate": {"steps": 1, "shots": 6},
        }
    )
    execution = Execution.of(Home(tmp_path), spec)
    made = generate.fn(execution, {})
    with pytest.raises(UserError, match=r"6 shots and 1 queries of each class, but .* test classes have fewer than 7 pictures"):
        train.fn(execution, {"generate": made})
