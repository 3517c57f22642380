"""Methods that adapt by gradient steps: their step sizes, other ways, and by whose statistics queries are normalized."""

import weakref
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure

from metaopt_core.distributions.batch import Episode, HeldOutSplit, TaskBatch, Tasks
from metaopt_core.distributions.contract import Generated
from metaopt_core.evaluation.protocol import Prepared, prepare
from metaopt_core.meta import step_sizes
from metaopt_core.meta.gradients import for_each_task
from metaopt_core.meta.inner_loop import GRADIENT_DESCENT, Rule
from metaopt_core.meta.learner import Learner, adapting
from metaopt_core.methods.by_gradient import ByGradient, query_statistics, with_outputs_of
from metaopt_core.methods.contract import COLLECTED, INDUCTIVE, TOGETHER, Setting, compared
from metaopt_core.methods.protonet.prototypes import ByPrototypes
from metaopt_core.networks.conv4 import Conv4
from metaopt_core.networks.mlp import MLP
from metaopt_core.networks.normalization import Normalization
from metaopt_core.spec.distribution import TaskShape
from metaopt_core.spec.pipeline import PipelineSpec
from metaopt_core.spec.train import InnerSpec
from tests.small import SMALL_CONV

CPU = torch.device("cpu")
PICTURES = TaskShape((1, 28, 28), "classes")
SPEC = PipelineSpec.model_validate(
    {
        "name": "s",
        "generate": {"distribution": "sinusoid"},
        "train": {"model": {"name": "mlp"}, "iterations": 1, "shots": 5, "queries": 5},
        "evaluate": {"steps": 1},
    }
)


@pytest.mark.parametrize("ways", [3, 8])
def test_for_other_ways_the_learned_outputs_are_repeated_and_adaptation_tells_them_apart(ways: int) -> None:
    trained, wider = (Learner(MLP((1, 8, size)), classification=True, loss_scale=1.0, inner_lr=0.1) for size in (5, ways))
    params = trained.network.init(0)
    params |= step_sizes.initial(InnerSpec(steps=2, learned_lr="per_parameter"), params)
    params["inner_lr.layer1.weight"] = torch.rand(1, 8, 5)
    x = torch.randn(4, 6, 1)
    resized = with_outputs_of(wider, params)
    outputs = wider.network(for_each_task(step_sizes.split(resized)[0], 4), x)
    learned = trained.network(for_each_task(step_sizes.split(params)[0], 4), x)
    repeated = torch.arange(ways) % 5
    torch.testing.assert_close(outputs, learned[..., repeated])
    assert torch.equal(resized["inner_lr.layer1.weight"], params["inner_lr.layer1.weight"][..., repeated])
    unchanged = with_outputs_of(trained, params)
    assert all(torch.equal(unchanged[name], value) for name, value in params.items())
    labels = torch.arange(6).remainder(ways).expand(4, 6)
    *_, adapted = wider.adapt(resized, TaskBatch(x, labels, x, labels), 3)
    after = wider.network(adapted, x)
    assert len(after[0, 0].unique()) == ways


class Lines(Generated):
    """The same line in every validation task, and nothing else."""

    train_classes = None

    def train(self, *_: object) -> TaskBatch:
        raise AssertionError("meta-train tasks are drawn for statistics of steps alone")

    def train_sample(self, *_: object) -> TaskBatch:
        raise AssertionError("meta-train tasks are drawn for statistics of steps alone")

    def held_out_count(self, split: HeldOutSplit) -> int:
        assert split == "validation"
        return 3

    def held_out(self, split: HeldOutSplit, episode: Episode, start: int, count: int) -> TaskBatch:
        assert split == "validation"
        x = torch.linspace(-1, 1, 10).view(1, 10, 1).expand(count, -1, -1)
        return TaskBatch(x, 3 * x + 1, x, 3 * x + 1)

    def on(self, device: torch.device) -> "Lines":
        return self

    def shifted(self, changes: Mapping[str, Any]) -> "Lines":
        raise AssertionError("step sizes are chosen on tasks that are not shifted")

    def contents(self) -> Mapping[str, Any]:
        raise AssertionError("what is in it is for generate")

    def overview(self) -> Figure:
        raise AssertionError("figures are for generate and evaluate")

    def examples(self, tasks: TaskBatch, predictions: object) -> Figure:
        raise AssertionError("figures are for generate and evaluate")


def ready(spec: PipelineSpec) -> dict[str, Prepared]:
    """The methods on lines, with a pipeline's untrained parameters in the place of learned ones."""
    shape = TaskShape((1,), "real")
    setting = Setting(spec, shape, Lines())
    methods = [method for method in compared(spec) if method.name != "pretrained"]
    trained = {spec.learned.key(spec.train): Learner.from_spec(spec, shape).network.init(0)}
    return {one.key: one for one in prepare(setting, methods, trained)}


def by_gradient(one: Prepared) -> ByGradient:
    assert isinstance(one.adapter, ByGradient)
    return one.adapter


def test_a_baseline_gets_the_step_size_that_is_best_on_the_validation_tasks() -> None:
    spec = SPEC.model_copy(update={"evaluate": SPEC.evaluate.model_copy(update={"baseline_lrs": (1e-4, 0.05, 100.0)})})
    found = ready(spec)
    assert list(found) == ["maml", "maml_safe", "random", "unadapted"]
    assert found["random"].adapter.inner_lr == 0.05
    assert found["maml"].adapter.inner_lr == spec.train.inner.lr


def test_baselines_adapt_all_parameters_by_gradient_descent_whatever_the_algorithm_does() -> None:
    inner = {"rule": "adam", "adapts": "head", "minibatch": 2}
    train = SPEC.train.model_dump() | {"inner": inner, "algorithm": "anil"}
    spec = PipelineSpec.model_validate(SPEC.model_dump() | {"train": train, "evaluate": {"steps": 1, "baseline_lrs": [0.05]}})
    found = ready(spec)
    assert list(found) == ["anil", "random", "unadapted"]  # Adam is not made safe
    assert (by_gradient(found["anil"]).learner.rule.name, by_gradient(found["random"]).learner.rule) == ("adam", GRADIENT_DESCENT)
    assert [method.label for method in found.values()] == ["ANIL", "random init", "no adaptation"]


def test_the_statistics_of_a_step_are_those_that_its_queries_are_normalized_by() -> None:
    """By the statistics of one task's own queries, they come out as they do together."""
    learner = replace(Learner.from_spec(SMALL_CONV, PICTURES), network=Conv4(1, 8, 3, Normalization("per_step", steps=2)))
    learner = replace(learner, rule=Rule(adapts=adapting(learner.network, "all")))
    random = torch.Generator().manual_seed(0)
    x, labels = torch.rand(2, 1, 3, 1, 28, 28, generator=random), torch.arange(3)[None]
    task, params = TaskBatch(x[0], labels, x[1], labels, classes=labels), learner.network.init(0)
    params = {name: value + torch.linspace(0, 1, 2)[:, None] if "norm" in name else value for name, value in params.items()}
    for steps in (0, 1, 2):
        statistics = query_statistics(learner, params, Tasks(1, lambda *_: task), steps, CPU)
        *_, predictions = ByGradient(learner, params, steps, statistics=statistics).adapted(task)
        found = [predictions[normalized](task.query_x, None) for normalized in (COLLECTED, TOGETHER)]
        torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)


def test_statistics_of_queries_take_the_memory_of_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = replace(Learner.from_spec(SMALL_CONV, PICTURES), network=Conv4(1, 8, 3, Normalization("per_step", steps=2)))
    x, labels = torch.rand(2, 3, 1, 28, 28), torch.arange(3).repeat(2, 1)
    task, adapt, made = TaskBatch(x, labels, x, labels), Learner.adapt, list[weakref.ref[torch.Tensor]]()

    def watched(*arguments: Any) -> Iterator[Mapping[str, torch.Tensor]]:
        for theta in adapt(*arguments):
            own = {name: value.clone() for name, value in theta.items()}
            made.append(weakref.ref(own["linear.bias"]))
            yield own
            del own
            assert sum(one() is not None for one in made) <= 1

    monkeypatch.setattr(Learner, "adapt", watched)
    query_statistics(learner, learner.network.init(0), Tasks(1, lambda *_: task), 4, CPU)
    assert len(made) == 5


def test_inductive_predictions_depend_on_no_other_query() -> None:
    learner = Learner.from_spec(SMALL_CONV, PICTURES)
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(3).repeat(2, 1)
    pictures = torch.rand(3, 2, 3, 1, 28, 28, generator=random)
    queries = pictures[1], pictures[2], torch.cat([pictures[1][:, :1], pictures[2][:, 1:]], 1)
    one, other, mixed = (TaskBatch(pictures[0], labels, x, labels, classes=labels) for x in queries)
    embedding = learner.network.init(0)
    stepwise = replace(learner, network=Conv4(1, 8, 3, Normalization("per_step", steps=2)))
    own = stepwise.network.init(0)
    statistics = query_statistics(stepwise, own, Tasks(2, lambda start, count: other[start : start + count]), 1, CPU)
    for method in (
        ByGradient(learner, embedding, 1),
        ByGradient(stepwise, own, 1, statistics=statistics),
        ByPrototypes(learner, embedding),
    ):
        *_, predictions = method.adapted(one)
        assert next(iter(predictions)) == TOGETHER
        assert list(predictions)[1:] == [INDUCTIVE] + ([COLLECTED] if getattr(method, "statistics", None) else [])
        for predict_alone in list(predictions.values())[1:]:
            alone = predict_alone(mixed.query_x, None)
            torch.testing.assert_close(alone[:, :1], predict_alone(one.query_x, None)[:, :1])
            torch.testing.assert_close(alone[:, 1:], predict_alone(other.query_x, None)[:, 1:])
        predict = predictions[TOGETHER]
        assert not torch.allclose(predict(one.query_x, None)[:, 0], predict(mixed.query_x, None)[:, 0], atol=1e-4)
