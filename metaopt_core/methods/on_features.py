"""Simple models on the features of the pre-trained network: the "good embedding" baselines (Tian et al. 2020).

What the last layer takes is computed once, by parameters that no task changes; what is chosen for the simple model is chosen on
meta-validation tasks, for each number of examples.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from metaopt_core.meta.learner import Learner
from metaopt_core.meta.parallel import one_thread
from metaopt_core.methods.contract import Setting
from metaopt_core.methods.from_support import Choices, FromSupport, chosen
from metaopt_core.methods.support import Predictor, Support
from metaopt_core.networks.network import Network, Params

SHARPNESS = (0.01, 0.1, 1.0, 10.0)  # of squared distances, in units of their mean


def ready(
    setting: Setting, trained: Mapping[str, Params], values: Sequence[float], model: Callable[[Choices], Predictor]
) -> FromSupport | None:
    """The model with the best of the values on the features; none where nothing was pre-trained.

    Features are of the task's examples as they come, in the form that the network takes.
    """
    params = trained.get("pretrained")
    if params is None:
        return None
    network = Learner.from_spec(setting.spec, setting.shape).as_baseline().network

    def of(value: float) -> Predictor:
        alone = Choices(torch.ones(1), torch.tensor([value], dtype=torch.float64))
        return on(network, params, setting.shape.input_shape, model(alone))

    with one_thread():
        choices = chosen(setting, values, of)
    return FromSupport(on(network, params, setting.shape.input_shape, model(choices)))


def on(network: Network, params: Params, shape: tuple[int, ...], model: Predictor) -> Predictor:
    """The model on features, of mean square 1 over a task's support set."""

    def features(x: Tensor, weight: Tensor | None) -> Tensor:
        with torch.no_grad():
            found: Tensor = network.features(params, x.reshape(*x.shape[:2], *shape).float(), weight)
        return found.double()

    def predict(support: Support, query_x: Tensor) -> tuple[Tensor, Tensor | None]:
        plain = bool((support.weight == 1).all())
        x, query = features(support.x, None if plain else support.weight.float()), features(query_x, None)
        share = (support.weight / support.count[:, None])[..., None]
        size = (x.square() * share).sum((1, 2)).div(x.shape[-1]).sqrt().clamp(min=1e-12)[:, None, None]
        return model(replace(support, x=x / size), query / size)

    return predict


def centroids(sharpness: Choices) -> Predictor:
    """Minus the squared distance to each class's mean (Snell et al. 2017), times the sharpness over their mean."""

    def predict(support: Support, query_x: Tensor) -> tuple[Tensor, None]:
        assert support.ways is not None
        members = F.one_hot(support.y, support.ways).double() * support.weight[..., None]
        means = members.transpose(1, 2) @ support.x / members.sum(1).clamp(min=1e-12)[..., None]
        distance = torch.cdist(query_x, means).square()
        scale = sharpness.of(support)[:, None, None] * 10 / distance.mean((1, 2), keepdim=True).clamp(min=1e-12)
        return -distance * scale, None

    return predict
