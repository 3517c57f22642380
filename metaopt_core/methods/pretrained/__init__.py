"""One network trained on the examples of all tasks together, then fine-tuned to each: the baseline of the MAML
paper.

For classification it learns to tell all classes of the meta-train split apart. A new task then starts from its body and a last
layer of zeros, since the labels of a task mean nothing outside of it.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from metaopt_core.methods.contract import Adapter, Method, Setting

if TYPE_CHECKING:
    from metaopt_core.networks.network import Params
    from metaopt_core.spec.distribution import TaskShape
    from metaopt_core.spec.train import TrainSpec
    from metaopt_core.training.phase import Phase


class Pretrained(Method):
    """Joint pre-training, fine-tuned with its best step size."""

    name = "pretrained"
    title = "pre-trained"
    rank = 30
    color = "tab:orange"
    trained = True
    takes_steps = True
    about = "trained on the examples of all tasks together, then fine-tuned to each: plain gradient descent on all parameters"

    def phase(self, setting: Setting) -> "Phase":
        from dataclasses import replace

        import torch

        from metaopt_core.meta.learner import Learner
        from metaopt_core.methods.pretrained.joint import Joint
        from metaopt_core.networks.build import build
        from metaopt_core.training.phase import Phase

        spec, shape, classes = setting.spec, setting.shape, setting.distribution.train_classes
        learner = Learner.for_training(spec, shape).as_baseline()
        initial = learner.network.init(spec.seed)
        objective, head = Joint(learner), {}
        if classes is not None:
            network = build(spec.train.model, shape.input_shape, classes)
            head = {key: torch.zeros_like(initial[key]) for key in learner.network.head}
            objective = Joint(replace(learner, network=network, loss_scale=1.0))
            initial = network.init(spec.seed)

        def to_adapt(params: "Params") -> "Params":
            return params | {key: value.to(params[key].device) for key, value in head.items()}

        return Phase(
            key=self.name,
            title="pre-training (baseline)",
            objective=objective,
            initial=initial,
            iterations=spec.pretrain_iterations,
            predict=lambda params, tasks: learner.predict_queries(params, tasks, spec.validation_steps),
            to_adapt=to_adapt,
        )

    def prepare(self, setting: Setting, trained: "Mapping[str, Params]") -> Adapter | None:
        from metaopt_core.methods.by_gradient import fine_tuned

        return fine_tuned(setting, self.title, trained[self.name])

    def served(self, train: "TrainSpec", shape: "TaskShape", inner_lr: float, steps: int, params: "Params") -> Adapter:
        from metaopt_core.meta.learner import Learner
        from metaopt_core.methods.by_gradient import ByGradient

        return ByGradient(Learner.of(train, shape, inner_lr).as_baseline(), params, steps, baseline=True)
