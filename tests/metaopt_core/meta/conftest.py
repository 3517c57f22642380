"""Small problems on which meta-gradients are compared."""

import pytest

from metaopt_core import kernels
from metaopt_core.distributions.batch import TaskBatch
from metaopt_core.meta.convolutional import CrossEntropyConv4
from metaopt_core.meta.learner import Learner
from metaopt_core.meta.losses import Differentiated, SquaredErrorMLP
from metaopt_core.networks.network import Params
from tests.metaopt_core.meta.plain import PROBLEMS


@pytest.fixture(params=[f"{name}, {loops} loops" for name in PROBLEMS for loops in ("compiled", "no")])
def problem(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[Learner, Params, TaskBatch]:
    name, loops = request.param.split(", ")
    if loops == "no loops":
        monkeypatch.setattr(kernels, "usable", lambda *tensors: False)
    learner, params, batch = PROBLEMS[name]()
    kind = {"mlp": SquaredErrorMLP, "conv4": CrossEntropyConv4}[name] if loops == "compiled loops" else Differentiated
    assert isinstance(learner.support(batch)[0], kind)
    return learner, params, batch
