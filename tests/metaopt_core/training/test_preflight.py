"""What is refused before any stage runs."""

import pytest
import torch

from metaopt_core.errors import UserError
from metaopt_core.spec.distribution import TaskShape
from metaopt_core.training.preflight import check
from tests.made_outputs import sinusoid_spec

MODULE = {"iterations": 3, "shots": 5, "queries": 5}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there() -> None:
    with pytest.raises(UserError, match="device: cuda, but PyTorch finds no GPU"):
        check(sinusoid_spec("waves", device="cuda"))


def test_a_network_that_keeps_statistics() -> None:
    model = {"name": "module", "path": "tests.own_nets:Strange", "arguments": {"kind": "statistics"}}
    with pytest.raises(UserError, match="keeps statistics"):
        check(sinusoid_spec("waves", train=MODULE | {"model": model}))


def test_a_network_is_tried_with_the_shape_of_the_tasks() -> None:
    spec = sinusoid_spec("waves", train=MODULE | {"model": {"name": "module", "path": "tests.own_nets:Waves"}})
    check(spec)
    with pytest.raises(UserError, match=r"tests\.own_nets:Waves"):
        check(spec, TaskShape((3, 3), "real"))
