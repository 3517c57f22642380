"""What all models of a pipeline share: they are strict, frozen, and quote nothing that they refuse."""

import pytest
from pydantic import ValidationError

from metaopt_core.spec.base import Positive, Range, Spec, impossible, is_import_path, problems_of, unfit


class Small(Spec):
    number: Positive
    bounds: Range = (0.0, 1.0)


@pytest.mark.parametrize("number", ["3", 3.0, True, 0, -1, 10**10, float("nan")])
def test_a_whole_number_is_nothing_else(number: object) -> None:
    with pytest.raises(ValidationError):
        Small.model_validate({"number": number})


def test_a_model_is_frozen_and_knows_its_keys_and_no_refused_value_is_quoted() -> None:
    small = Small(number=3)
    with pytest.raises(ValidationError, match="frozen"):
        small.number = 4  # type: ignore[misc]
    with pytest.raises(ValidationError, match="Extra inputs") as caught:
        Small.model_validate({"number": 3, "password": "hunter2"})
    assert "hunter2" not in str(caught.value)


def test_bounds_are_two_numbers_the_smaller_one_first() -> None:
    assert Small(number=1, bounds=[2.0, 3.0]).bounds == (2.0, 3.0)  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="expected two numbers, the smaller one first"):
        Small(number=1, bounds=(3.0, 2.0))


@pytest.mark.parametrize(
    ("text", "why"),
    [("one\nline\tmore", None), ("ä✓", None), ("\x1b[31m", "U+001B is a control"), ("\ud800", "U+D800"), ("x" * 10_001, "10001")],
)
def test_a_text_that_no_spec_may_hold_is_told_from_others(text: str, why: str | None) -> None:
    found = unfit(text)
    assert found is None if why is None else why in str(found)


@pytest.mark.parametrize(
    ("text", "is_one"),
    [("a.b:C", True), ("a:c_1", True), ("a.b", False), ("a:", False), (":C", False), ("a b:C", False), (5, False)],
)
def test_an_import_path_is_a_module_and_a_name(text: object, is_one: bool) -> None:
    assert is_import_path(text) is is_one


def test_what_a_component_refuses_is_said_at_its_place() -> None:
    with pytest.raises(ValidationError) as caught:
        Small.model_validate({"nunber": 3, "bounds": "x"})
    assert dict(problems_of(caught.value, Small, ("generate",))) == {
        ("generate", "number"): "missing",
        ("generate", "bounds"): "expected a valid tuple",
        ("generate", "nunber"): "unknown key, did you mean number?",
    }
    error = impossible(problems_of(caught.value, Small, ("generate",)))
    assert error.message().startswith("generate.number: missing; generate.bounds: expected a valid tuple")
