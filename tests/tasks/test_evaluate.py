"""What evaluate publishes."""

import json

import pandas as pd
import pytest
from mlflow import MlflowClient

from metaopt_core.pipeline.home import Home
from metaopt_core.pipeline.store import StageOutput
from metaopt_core.spec.pipeline import PipelineSpec
from tests.tasks.ran import BASELINES


def test_the_table_has_a_row_a_variant_method_and_task(ran: tuple[PipelineSpec, Home, dict[str, StageOutput]]) -> None:
    spec, _, outputs = ran
    table = pd.read_parquet(outputs["evaluate"] / "tasks.parquet")
    steps = range(spec.evaluate.steps + 1)
    measures, at_horizon = ["loss"], []
    if spec.train.ways:
        measures.insert(0, "accuracy")
        at_horizon = ["inductive_accuracy", "inductive_loss", "confidence", "correct", "groups"]
    by_step = [f"{measure}_{step}" for measure in measures for step in steps]
    assert list(table.columns) == ["variant", "method", "task", "inner_lr", *by_step, *at_horizon]
    methods = ("maml", "maml_safe", *BASELINES[bool(spec.train.ways)], "random", "unadapted")
    variants = ["in-distribution", *spec.shifts]
    assert table.groupby(["variant", "method"]).size().to_dict() == {(v, m): 30 for v in variants for m in methods}
    summary = json.loads((outputs["evaluate"] / "summary.json").read_text())
    assert summary["normalization"] == ("transductive batch norm" if spec.train.ways else None)
    for variant, tested in {"in-distribution": summary, **summary["shifted"]}.items():
        rows = table[table["variant"] == variant]
        (unadapted,) = {tuple(rows.loc[rows["method"] == "unadapted", f"loss_{step}"]) for step in steps}
        assert unadapted == pytest.approx(rows.loc[rows["method"] == "maml", "loss_0"])
        for method, result in tested["methods"].items():
            column = rows.loc[rows["method"] == method, f"loss_{steps[-1]}"]
            assert result["steps"][-1]["loss"]["mean"] == pytest.approx(column.mean(), rel=1e-5)


def test_meta_test_tasks_are_followed_over_training_only_if_asked_for_and_choose_nothing(
    ran: tuple[PipelineSpec, Home, dict[str, StageOutput]],
) -> None:
    spec, _, outputs = ran
    record = json.loads((outputs["log"] / "log.json").read_text())
    curve = MlflowClient(record["tracking_uri"]).get_metric_history(record["run_id"], "meta_test/loss_over_training/maml")
    if not spec.evaluate.over_training:
        assert not curve
        return
    history = pd.read_parquet(outputs["train"] / "history.parquet")
    found = pd.read_parquet(outputs["evaluate"] / "over_training.parquet")
    measures = ("loss", "accuracy") if spec.train.ways else ("loss",)
    validated = history.loc[(history["phase"] == "maml") & (history["name"] == "validation_loss"), "iteration"].tolist()
    for measure in measures:
        assert found.loc[found["name"] == f"meta_test_{measure}", "iteration"].tolist() == validated

    summary = json.loads((outputs["evaluate"] / "summary.json").read_text())
    at_best = found[found["iteration"] == outputs["train"].extra["best_iteration"]].set_index("name")["value"]
    for measure in measures:
        evaluated = summary["methods"]["maml"]["steps"][spec.horizon][measure]["mean"]
        assert at_best[f"meta_test_{measure}"] == pytest.approx(evaluated, rel=1e-4)
    assert sorted(point.step for point in curve) == validated
