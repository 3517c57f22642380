"""What is known of a distribution without its data."""

import json

import pytest

from metaopt_core.spec.components import DISTRIBUTIONS, known
from metaopt_core.spec.distribution import DistributionSpec, TaskShape
from tests.toys.planes import Planes


def test_a_shape_is_written_and_read_back() -> None:
    for shape in (TaskShape((1, 28, 28), "classes"), TaskShape((3,), "real", 2)):
        assert TaskShape.from_json(json.loads(json.dumps(shape.as_json()))) == shape


def test_a_network_has_an_output_for_each_way_or_for_each_number_of_a_target() -> None:
    assert TaskShape((1, 28, 28), "classes").outputs_for(5) == 5
    assert TaskShape((3,), "real", 2).outputs_for(None) == 2


def test_a_component_is_named_by_the_one_value_that_its_name_can_have() -> None:
    assert {name: kind.component_name() for name, kind in known(DISTRIBUTIONS, DistributionSpec).items()} == {
        name: name for name in ("mixture", "omniglot", "pictures", "python", "sinusoid", "table")
    }
    assert DistributionSpec.component_name() == ""  # a base of others
    assert Planes.component_name() == ""  # named by its import path


@pytest.mark.parametrize("kind", known(DISTRIBUTIONS, DistributionSpec).values(), ids=known(DISTRIBUTIONS, DistributionSpec))
def test_every_setting_is_described_and_what_is_hidden_is_one(kind: type[DistributionSpec]) -> None:
    assert all(field.description for field in kind.model_fields.values())
    assert all(field.description and not field.is_required() for field in kind.Shift.model_fields.values())
    assert (kind.not_identity | kind.not_shown) <= kind.model_fields.keys()
    assert kind.noun != DistributionSpec.noun


def test_where_nothing_is_said_nothing_can_be_shifted_or_is_known() -> None:
    class Plain(DistributionSpec):
        """Without settings."""

    plain = Plain(distribution="x:Plain")
    assert (plain.shape, plain.data(), plain.shift_keys({})) == (None, None, frozenset())
    assert plain.shifted({}) is plain
