"""What pydantic refuses, in words. Every kind of mistake with its whole message is in mistakes/values.yaml and keys.yaml."""

import pytest
from pydantic import ValidationError

from metaopt_core.spec.base import MOST
from metaopt_core.spec.document import read_value
from metaopt_core.spec.explain import either, expectation, refusals, suggestion, unknown_key, unknown_name
from metaopt_core.spec.pipeline import PipelineSpec


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "integer", "minimum": 1, "maximum": MOST}, "a whole number of at least 1"),
        ({"type": "integer", "minimum": 0, "exclusiveMaximum": 10}, "a whole number from 0 to 9"),
        ({"type": "number", "exclusiveMinimum": 0}, "a number greater than 0"),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, "a number greater than 0 and less than 1"),
        ({"anyOf": [{"type": "number", "minimum": 0}, {"type": "null"}]}, "a number of at least 0 or null"),
        ({"enum": ["mean", "sum_over_ways"]}, "mean or sum_over_ways"),
        ({"type": "array", "prefixItems": [{}, {}]}, "a list of two numbers"),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 1}, "a list of one or more whole numbers"),
        ({"type": "string", "minLength": 1}, "non-empty text"),
        ({"type": "boolean"}, "true or false"),
    ],
)
def test_a_schema_says_what_a_value_has_to_be(schema: dict[str, object], said: str) -> None:
    assert expectation(schema) == said


def test_the_likeliest_word_is_suggested_or_all_are_listed() -> None:
    assert suggestion("Gpu", ["auto", "cpu", "cuda"]) == ", did you mean cuda?"  # its letters are closer to cpu
    assert suggestion("MEAN", ["mean", "sum"]) == ", did you mean mean?"
    assert suggestion(5, ["mean"]) == suggestion("x", ["mean"]) == ""
    assert unknown_key("shotz", ["shots", "ways"]) == "unknown key, did you mean shots?"
    assert unknown_key("x", ["shots", "ways"]) == "unknown key, expected shots or ways"
    assert unknown_name("pipeline", "wave", ["waves", "omniglot"]) == "no pipeline wave, did you mean waves?"


def test_of_very_many_alternatives_the_first_are_named() -> None:
    assert either(["a", "b", "c"]) == "a, b or c"
    assert either(range(1000)).endswith("48 or others")


def test_each_mistake_of_a_block_has_its_path_and_what_was_found_there() -> None:
    block, _ = read_value("{generate: {distribution: sinusoid, x: 3}, train: {shots: many, model: {name: mlp}}}", "block", ())
    assert block is not None
    with pytest.raises(ValidationError) as caught:
        PipelineSpec.model_validate({"name": "waves", **block.plain()})
    found = {".".join(map(str, one.path)): one for one in refusals(caught.value, block)}
    assert found["generate.x"].message == "expected a list of two numbers, found 3"
    assert found["train.shots"].message.startswith("expected a whole number of at least 1, or two as in ")
    missing = found["train.iterations"]
    assert (missing.absence, missing.at_key, missing.message) == (True, True, "missing, expected a whole number of at least 1")
