"""What to use follows from paired differences with every number of examples."""

from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from metaopt_core.evaluation.choice import choose
from metaopt_core.evaluation.protocol import evaluate, prepare
from metaopt_core.evaluation.recommendation import recommend
from metaopt_core.evaluation.statistics import paired, statistics
from metaopt_core.evaluation.summary import summarize
from metaopt_core.methods.contract import Setting, compared, fit_all
from metaopt_core.reporting.words import in_short
from metaopt_core.spec.pipeline import PipelineSpec
from tests.small import setting_of, train_all
from tests.summaries import ACCURACY, LOSS, method, summary

TASKS = 40
R2 = LOSS | {"title": "R²", "larger_is_better": True}
NOISE = np.random.default_rng(0).normal(size=(3, TASKS))


def made(means: dict[str, tuple[float, float]], spread: float = 0.1, **values: Any) -> dict[str, Any]:
    """A summary with the mean R² of methods with 5 and with 20 examples; tasks differ by chance in it."""
    names, shared = list(means), np.random.default_rng(1).normal(size=TASKS)

    def entry(place: int) -> dict[str, Any]:
        each = {}
        for number, name in enumerate(names):
            noise = np.random.default_rng(number).normal(size=TASKS)
            mean = means[name][place] if place < 2 else sum(means[name]) / 2
            each[name] = mean + shared + spread * (noise - noise.mean())
        methods = {name: {"r2": statistics(found, True), "harmed": values.get("harmed", 0.0)} for name, found in each.items()}
        pairs = [{"of": a, "against": b, "r2": paired(each[a] - each[b])} for a, b in combinations(names, 2)]
        return {"shots": (5, 20, 0)[place], "tasks": TASKS, "left_out": 0, "methods": methods, "differences": pairs}

    labels = {"maml": "MAML", "mixed": "mixed model", "forest": "random forest", "mean": "support mean"}
    simple = {"mean": 0, "mixed": 3, "forest": 9}
    steps = [{"r2": {**entry(1)["methods"][name]["r2"]}} for name in names]
    methods = {
        name: method(
            labels[name], [step], baseline=name != "maml", takes_steps=name == "maml", simple=simple.get(name, 100),
            reference=name == "mean",
        )
        for name, step in zip(names, steps, strict=True)
    }  # fmt: skip
    found = summary(methods, metrics={"r2": R2}, shots=20)
    return found | {"by_shots": [entry(0), entry(1)], "over_shots": entry(2)}


def told(found: dict[str, Any]) -> str:
    recommendation = recommend(found)
    assert recommendation is not None
    return "".join(cell.text for cell in in_short(found | {"recommendation": recommendation})).partition("new tasks. ")[2]


def test_a_meta_learner_is_named_with_the_numbers_of_examples_with_which_it_is_better() -> None:
    found = made({"maml": (0.1, 0.5), "mixed": (0.1, 0.3), "mean": (0.0, 0.0)})
    assert told(found).startswith(
        "Use MAML: with 20 examples it is better than the best baseline, the mixed model (largest difference +0.2000 ± "
    )


def test_a_tie_names_the_simplest_baseline_that_is_as_good_as_the_best() -> None:
    found = made({"maml": (0.21, 0.3), "forest": (0.211, 0.301), "mixed": (0.21, 0.3), "mean": (0.0, 0.0)})
    assert told(found).startswith("Use the mixed model: no meta-learner is better by more than its interval (largest difference ")
    better = made({"maml": (0.2, 0.3), "forest": (0.3, 0.4), "mixed": (0.2, 0.3), "mean": (0.0, 0.0)}, spread=0.01)
    recommendation = recommend(better)
    assert recommendation is not None
    assert (recommendation["use"], recommendation["because"]) == ("forest", "worse")


def test_a_meta_learner_that_is_worse_harms_only_if_it_is_worse_than_the_support_mean_on_a_share_of_tasks() -> None:
    means = {"maml": (0.0, 0.1), "mixed": (0.3, 0.4), "mean": (0.0, 0.0)}
    assert told(made(means)).startswith("Use the mixed model: the best meta-learner, MAML, is worse by more than its interval")
    said = told(made(means, harmed=0.47))
    assert said.startswith("Use the mixed model: meta-learning harms here. The best meta-learner, MAML, is worse")
    assert said.endswith("On 47% of the tasks MAML is worse than the support mean.")


def test_what_is_better_by_chance_is_not_better() -> None:
    assert told(made({"maml": (0.22, 0.33), "mixed": (0.2, 0.3)}, spread=0.3)).startswith("Use the mixed model: no meta-learner")


def test_errors_are_better_where_they_are_smaller_and_no_results_by_shots_give_no_advice() -> None:
    found = made({"maml": (0.1, 0.5), "mixed": (0.1, 0.3)})
    recommendation = recommend(found | {"metrics": {"r2": R2 | {"larger_is_better": False}}})
    assert recommendation is not None
    assert recommendation["because"] == "worse"
    assert (
        recommend(summary({"maml": method("MAML", [{"accuracy": statistics(np.ones(3))}])}, metrics={"accuracy": ACCURACY})) is None
    )


@pytest.fixture(scope="module")
def unrelated(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    """A table whose tasks share nothing: each has a line of its own, beside much noise."""
    body: dict[str, Any] = {
        "name": "unrelated",
        "generate": {
            "distribution": "tests.toys.assays:Assays",
            "shared": 0.0,
            "own": 0.3,
            "noise": 1.0,
            "offset": 0.3,
            "train_tasks": 20,
            "held_out": {"validation_tasks": 20, "test_tasks": 30},
        },
        "train": {
            "model": {"name": "mlp", "hidden": [32]},
            "iterations": 200,
            "meta_batch_size": 20,
            "shots": 10,
            "queries": 20,
            "inner": {"lr": 0.05, "steps": 2},
            "validation": {"every": 100, "steps": 4},
            "baselines": ["support_mean", "pooled_ridge_offset", "mixed_model", "ridge_alone"],
        },
        "evaluate": {"steps": 4, "shots": [5, 10, 20], "repeats": 2, "model": "best"},
    }
    return setting_of(PipelineSpec.model_validate(body), tmp_path_factory.mktemp("unrelated"))


def test_where_tasks_share_nothing_meta_learning_harms_and_the_logged_model_is_as_good_as_the_best_plain_one(
    unrelated: Setting, tmp_path_factory: pytest.TempPathFactory
) -> None:
    trained = {key: one.params for key, one in train_all(unrelated, tmp_path_factory.mktemp("checkpoints")).items()}
    trained |= {one.key(unrelated.spec.train): params for one, (params, _) in fit_all(unrelated).items()}
    ready = prepare(unrelated, compared(unrelated.spec), trained)
    found = summarize(unrelated, evaluate(unrelated, ready), ready, choose(unrelated, ready))
    said = "".join(cell.text for cell in in_short(found))
    assert "meta-learning harms here" in said
    assert found["recommendation"]["harmed"] > 0.25
    assert f"On {found['recommendation']['harmed']:.0%} of the tasks" in said
    over = {name: values["r2"]["mean"] for name, values in found["over_shots"]["methods"].items()}
    plain = {name: mean for name, mean in over.items() if found["methods"][name]["baseline"]}
    assert found["model"] in plain
    assert over[found["model"]] > max(plain.values()) - 0.02
    assert "was chosen on the meta-validation tasks" in said


def test_the_choice_asks_the_meta_validation_tasks_alone(unrelated: Setting) -> None:
    class NoTestTasks:
        def __getattr__(self, name: str) -> Any:
            return getattr(unrelated.distribution, name)

        def held_out(self, split: str, *arguments: Any) -> Any:
            assert split == "validation"
            return unrelated.distribution.held_out("validation", *arguments)

    setting = replace(unrelated, distribution=NoTestTasks())
    fits = {one.key(unrelated.spec.train): params for one, (params, _) in fit_all(setting).items()}
    ready = prepare(setting, [one for one in compared(setting.spec) if one.fitted], fits)
    found = choose(setting, ready)
    assert found is not None
    assert set(found["means"]) == {"support_mean", "pooled_ridge_offset", "mixed_model", "ridge_alone"}
    assert found["means"][found["method"]] == max(found["means"].values())
    assert found["means"]["support_mean"] == 0
