"""metaopt's library: meta-learning without orchestration. Imports neither Prefect nor `flows` nor `tasks`.

`__all__` is its public interface, which changes only with a line in CHANGELOG.md. Names are imported on first use, so that
`import metaopt_core` is quick and imports no PyTorch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metaopt_core.distributions.batch import Episode, TaskBatch, TaskDistribution
    from metaopt_core.distributions.contract import Distribution, Generated
    from metaopt_core.distributions.drawn import Drawn
    from metaopt_core.distributions.random import Stream, normal, uniform
    from metaopt_core.errors import UserError
    from metaopt_core.meta.learner import Learner
    from metaopt_core.meta.objectives import AfterAdaptation, MetaGradientSettings
    from metaopt_core.methods.contract import TOGETHER, Adapter, Method, Predict, Setting
    from metaopt_core.networks.conv4 import Conv4
    from metaopt_core.networks.mlp import MLP
    from metaopt_core.networks.network import Network
    from metaopt_core.networks.resnet12 import ResNet12
    from metaopt_core.spec.base import Range, Spec
    from metaopt_core.spec.distribution import Targets, TaskShape
    from metaopt_core.spec.loader import load
    from metaopt_core.spec.metric import Metric, metric
    from metaopt_core.spec.pipeline import PipelineSpec
    from metaopt_core.training.phase import Phase, train

_PUBLIC = {
    "distributions.batch": ("Episode", "TaskBatch", "TaskDistribution"),
    "distributions.contract": ("Distribution", "Generated"),
    "distributions.drawn": ("Drawn",),
    "distributions.random": ("Stream", "normal", "uniform"),
    "errors": ("UserError",),
    "meta.learner": ("Learner",),
    "meta.objectives": ("AfterAdaptation", "MetaGradientSettings"),
    "methods.contract": ("TOGETHER", "Adapter", "Method", "Predict", "Setting"),
    "networks.conv4": ("Conv4",),
    "networks.mlp": ("MLP",),
    "networks.network": ("Network",),
    "networks.resnet12": ("ResNet12",),
    "spec.base": ("Range", "Spec"),
    "spec.distribution": ("Targets", "TaskShape"),
    "spec.loader": ("load",),
    "spec.metric": ("Metric", "metric"),
    "spec.pipeline": ("PipelineSpec",),
    "training.phase": ("Phase", "train"),
}
_MODULES = {name: module for module, names in _PUBLIC.items() for name in names}

__version__: str
__all__ = [
    "MLP",
    "TOGETHER",
    "Adapter",
    "AfterAdaptation",
    "Conv4",
    "Distribution",
    "Drawn",
    "Episode",
    "Generated",
    "Learner",
    "MetaGradientSettings",
    "Method",
    "Metric",
    "Network",
    "Phase",
    "PipelineSpec",
    "Predict",
    "Range",
    "ResNet12",
    "Setting",
    "Spec",
    "Stream",
    "Targets",
    "TaskBatch",
    "TaskDistribution",
    "TaskShape",
    "UserError",
    "__version__",
    "load",
    "metric",
    "normal",
    "train",
    "uniform",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version  # slow, and without an answer for code that was logged with a model

        return version("metaopt")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
