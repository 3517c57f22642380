"""Components are found by looking into their package, or by an import path, and what is none is refused in words."""

import re
from pathlib import Path

import pytest
from pydantic_core import PydanticCustomError

from metaopt_core.spec.components import DISTRIBUTIONS, METHODS, METRICS, find, imported, known
from metaopt_core.spec.distribution import DistributionSpec
from metaopt_core.spec.method import MethodInfo
from metaopt_core.spec.metric import Metric

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(("package", "kind"), [(DISTRIBUTIONS, DistributionSpec), (METHODS, MethodInfo), (METRICS, Metric)])
def test_every_module_of_a_package_holds_components_or_is_said_to_hold_none(package: str, kind: type) -> None:
    folder = ROOT.joinpath(*package.split("."))
    text = (folder / "__init__.py").read_text()
    support = set(re.findall(r'"(\w+)"', text[text.index("SUPPORT") :]))
    modules = {path.stem for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()} - {"__init__"}
    holding = {component.__module__.removeprefix(f"{package}.") for component in known(package, kind).values()}
    assert modules == holding | support


def test_one_is_found_by_its_name_and_by_its_path() -> None:
    assert find(METHODS, MethodInfo, "random").title == "random init"
    assert find(METRICS, Metric, "tests.toys.largest_error:largest_error").name == "largest_error"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (
            "tests.toys.least_squares:Solved",
            "expected a metaopt_core.spec.method.MethodInfo, and tests.toys.least_squares has no such",
        ),
        ("tests.toys.least_squares:nothing", "tests.toys.least_squares has no such nothing"),
        ("tests.toys.planes:Planes", "tests.toys.planes has no such Planes"),
        ("tests.toys.nowhere:Method", "no module tests.toys.nowhere in "),
    ],
)
def test_what_is_none_of_its_kind_is_refused(path: str, message: str) -> None:
    with pytest.raises(PydanticCustomError, match=re.escape(message)):
        imported(path, MethodInfo)


def test_a_name_that_is_none_is_answered_with_those_that_there_are() -> None:
    with pytest.raises(PydanticCustomError, match=r"expected .*, maml, .*, safe, .* or \w+, or an import path"):
        find(METHODS, MethodInfo, "nearest")
