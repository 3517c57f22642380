"""What a summary says, as metrics: whatever its methods are called, and sorted so that what is looked for first stands first."""

import json
from typing import Any

import pytest

from metaopt_core.pipeline.home import Home
from metaopt_core.tracking import results
from metaopt_core.tracking.runs import curve_name
from tests.made_outputs import publish_upstream, sinusoid_spec


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of a pipeline whose model was trained by Reptile, with one kind of shifted tasks and a second measure."""
    upstream = publish_upstream(Home(tmp_path_factory.mktemp("home")), sinusoid_spec("reptile"))
    found: dict[str, Any] = json.loads((upstream["evaluate"] / "summary.json").read_text().replace('"maml"', '"reptile"'))
    for method in found["methods"].values():
        for entry in method["steps"]:
            entry["mae"] = entry["loss"] | {"mean": entry["loss"]["mean"] / 2}
    found["methods"]["reptile"]["pooled"] = {"calibration_error": 0.25}
    found["shifted"] = {"louder": {"methods": found["methods"], "changes": {}}}
    return found


def _named(numbers: list[results.Number]) -> dict[str, list[tuple[int, float]]]:
    found: dict[str, list[tuple[int, float]]] = {}
    for name, step, value in numbers:
        found.setdefault(name, []).append((step, value))
    return found


def test_curves_are_named_by_the_methods_and_measures_of_the_summary(summary: dict[str, Any]) -> None:
    curves = _named(results.curves(summary))
    assert curves["meta_test/loss/reptile"] == [(0, 1), (1, 1 / 2), (2, 1 / 3)]
    assert curves["meta_test/mae/random"] == [(0, 1 / 2), (1, 1 / 4), (2, 1 / 6)]
    assert curves["meta_test/tasks_diverged/reptile"] == [(0, 0), (1, 1), (2, 2)]
    assert curves["shifted/louder/mae/pretrained"] == curves["meta_test/mae/pretrained"]
    assert not [name for name in curves if "maml" in name]


def test_the_model_has_its_numbers_at_the_horizon_under_names_that_every_run_shares(summary: dict[str, Any]) -> None:
    numbers = {name: value for name, _, value in results.at_horizon(summary)}
    assert numbers["logged_model/test_loss"] == 1 / 3
    assert numbers["logged_model/test_mae"] == 1 / 6
    assert numbers["logged_model/test_loss_ci95"] == 0.1
    assert numbers["logged_model/test_diverged"] == 2
    assert numbers["logged_model/test_calibration_error"] == 0.25
    assert numbers["logged_model/test_loss_worst"] == 2.0
    assert numbers["shifted_logged_model/louder_loss_ci95"] == 0.1
    assert {step for _, step, _ in results.at_horizon(summary)} == {0}


def test_differences_are_of_the_model_from_each_other_method(summary: dict[str, Any]) -> None:
    assert _named(results.differences(summary))["meta_test_difference/loss/pretrained"] == [(0, -0.25)]
    turned = summary | {"differences": [{**summary["differences"][0], "of": "pretrained", "against": "reptile"}]}
    assert _named(results.differences(turned))["meta_test_difference/loss/pretrained"] == [(0, 0.25)]


def test_results_and_validations_stand_above_times(summary: dict[str, Any]) -> None:
    """MLflow sorts sections by name."""
    told = [name for name, _, _ in (*results.curves(summary), *results.differences(summary), *results.at_horizon(summary))]
    told += [curve_name("reptile", name) for name in ("loss", "validation_loss", "meta_train_loss", "meta_test_loss")]
    sections = sorted({name.rpartition("/")[0] for name in told} | {"wall_time/seconds"})
    assert sections[0] == "logged_model"
    assert sections[-1] == "wall_time/seconds"
    assert curve_name("reptile", "validation_accuracy") == "meta_validation/accuracy/reptile"
    assert curve_name("reptile", "loss") == "meta_train/loss/reptile"
    assert curve_name("reptile", "meta_train_loss") == "meta_train/loss_as_validated/reptile"
