"""Scalars as YAML 1.2 reads them."""

from typing import Any

import pytest

from metaopt_core.spec.document import read_value, scalar


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E5", 100000.0),
        ("-.5", -0.5),
        ("3.", 3.0),
        ("+7", 7),
        ("010", 10),
        ("0o17", 15),
        ("0x1F", 31),
        ("true", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("", None),
        (".inf", float("inf")),
        ("-.INF", float("-inf")),
        *((text, text) for text in ("on", "off", "yes", "no", "y", "True!", "tRUE", "1_000", "0b11", "12:30", "190:20:30")),
        *((text, text) for text in ("2026-01-01", "1e", "e5", ".", "-", "+", "inf", "nan", "0o8", "=", "<<")),
    ],
)
def test_scalar_has_the_value_that_yaml_1_2_gives_it(text: str, value: Any) -> None:
    found = scalar(text)
    assert (found, type(found)) == (value, type(value))


def test_not_a_number_is_read() -> None:
    found = scalar(".nan")
    assert isinstance(found, float)
    assert found != found


@pytest.mark.parametrize(("text", "value"), [('"1e-3"', "1e-3"), ("'true'", "true"), ('""', ""), ("|\n  1\n", "1\n")])
def test_quoted_scalar_is_text(text: str, value: str) -> None:
    node, mistakes = read_value(text, "--set x=", ("x",))
    assert node is not None
    assert (node.value, mistakes) == (value, [])
