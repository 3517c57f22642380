# ruff: noqa: E501
"""Inputs that nobody writes on purpose: each is one plain message, within two seconds, and nothing is written.

`test_anything_is_read_or_refused_in_time` changes right files at random; with `--hypothesis-profile long` it does so for as long
as one likes.
"""

import json
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from metaopt_core.spec import user_source
from metaopt_core.spec.as_yaml import spec_yaml
from metaopt_core.spec.document import Mistake
from metaopt_core.spec.loader import SpecError, load
from metaopt_core.spec.pipeline import PipelineSpec

MISTAKES = Path(__file__).parent / "mistakes"
SHIPPED = (Path(__file__).resolve().parents[3] / "pipelines.yaml").read_text()
BASES = [SHIPPED, *(path.read_text() for path in sorted((MISTAKES / "right").glob("*.yaml")))]
SINUSOID = (MISTAKES / "right" / "sinusoid.yaml").read_text()


@contextmanager
def in_time() -> Iterator[None]:
    """Measured by the processor's time: other processes are not the file's fault."""
    start = time.process_time()
    yield
    assert time.process_time() - start < 2


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(text: str, options: Mapping[str, Sequence[str]] | None = None) -> list[str]:
    """What is said of a file, in time."""
    Path("pipelines.yaml").write_text(text)
    with in_time(), pytest.raises(SpecError) as error:
        load(Path("pipelines.yaml"), options or {})
    lines = str(error.value).split("\n")
    assert all(line.isprintable() for line in lines)
    assert max(map(len, lines)) < 1000
    return lines


def mistakes_of(file: Path) -> Sequence[Mistake]:
    try:
        load(file)
    except SpecError as error:
        return error.mistakes
    return ()


# --- text ---


@pytest.mark.parametrize(
    "text",
    [
        "<<: " + "[" * 10_000,
        "<<‹: [[[…" * 1000,
        "<‹: [[[…" * 1250,
        "[" * 10_000,
        "{a: " * 2500,
        "- " * 5000,
        "? " * 5000,
        "? [" * 3000,
        "pipelines: [" + "a, " * 80_000 + "]",
        "pipelines:\n" + "".join(f"  p{i}: {i}\n" for i in range(15_000)),
        "&a [" * 2000,
        "!a " * 5000,
        "---\n" * 50_000,
        "%TAG !a! b\n" * 5000,
        '"' + "\\n" * 100_000,
        "a" * 260_000,
        "a:" * 120_000,
        "k" * 200_000 + ": 1",
        "pipelines: {? " + "x" * 250_000 + " : 1}",
        "é" * 140_000,
    ],
    ids=lambda text: text[:8].strip(),
)
def test_text_without_end_is_refused_in_time(folder: Path, text: str) -> None:
    said(text)


@pytest.mark.parametrize(
    ("block", "line"),
    [
        (f"seed: {'9' * 5000}", "seed: found a number of 5000 digits, expected a smaller one"),
        (f"description: {'9' * 5000}", "description: found a number of 5000 digits, expected a smaller one"),
        ("seeds: 1000000", "seeds: expected a whole number from 1 to 1000, found 1000000"),
        ("seed: 9223372036854775807\n    seeds: 2", "seeds: 2 from 9223372036854775807 on, but no seed is larger than 9223372036854775807: expected fewer"),
        (f"extends: {'x' * 1000}", f"extends: no pipeline {'x' * 57}… in this file, and no other to extend; `include: FILE` at the top adds those of another file"),
        (f"{'x' * 1000}: 1", f"{'x' * 57}…: unknown key, expected extends, description, seed, seeds, splits, device, generate, train, evaluate, log, sweep or schedule"),
        (f"*{'x' * 1000} : 1", f"waves: *{'x' * 57}… is an alias, expected the value itself (`extends` shares settings)"),
        (f"seed: !{'x' * 1000} 1", f"seed: tag !{'x' * 56}…, expected a plain value without a tag"),
    ],
    ids=lambda text: text[:12],
)  # fmt: skip
def test_value_without_measure_is_named_shortly(folder: Path, block: str, line: str) -> None:
    assert said(SINUSOID.replace("seed: 1", block))[0].endswith(line)


@pytest.mark.parametrize(
    ("right", "wrong", "line"),
    [
        ("distribution: sinusoid", "distribution: sinusoid\n      held_out: {test_tasks: 99999999999999999999}", "held_out.test_tasks: expected a whole number from 1 to 1000000, found 99999999999999999999"),
        ("iterations: 100", "iterations: 99999999999999999999", "train.iterations: expected a whole number of at most 1000000000, found 99999999999999999999"),
        ("lr: 1e-3", "lr: 1e400", "train.outer.lr: expected a finite number greater than 0, found 1e400"),
        ("shots: 5", "shots: 5\n      inner: {momentum: 2}", "train.inner.momentum: expected a number greater than 0 and less than 1, found 2"),
        ("shots: 5", "shots: 5\n      first_order_share: 2", "train.first_order_share: expected a number from 0 to 1, found 2"),
        ("register_as: waves", f"register_as: {'a' * 10_001}", "log.register_as: a text of 10001 characters, expected at most 10000"),
        ("register_as: waves", f"register_as: {'a' * 9_999}/", "log.register_as: expected a name of only letters, digits, spaces and the signs _ . -, found \"" + "a" * 56 + "…"),
    ],
)  # fmt: skip
def test_number_beyond_all_measure_is_refused(folder: Path, right: str, wrong: str, line: str) -> None:
    assert said(SINUSOID.replace(right, wrong))[0].endswith(line)


def test_long_chain_of_pipelines_is_read_in_time(folder: Path) -> None:
    links = "".join(f"  p{number}: {{extends: {f'p{number - 1}' if number else 'waves'}}}\n" for number in range(1000))
    Path("pipelines.yaml").write_text(SINUSOID + links)
    with in_time():
        assert load(Path("pipelines.yaml"))["p999"].train.shots == 5
    assert said(SINUSOID.replace("seed: 1", "extends: p999") + links)[0].count(" extends ") == 10


def test_pipelines_that_multiply_are_refused(folder: Path) -> None:
    many = "".join(f"        v{number}: {{noise: {number}.5}}\n" for number in range(100))
    text = SINUSOID.replace("      steps: 3\n", f"      steps: 3\n      shifted:\n{many}")
    children = "".join(f"  p{number}: {{extends: waves}}\n" for number in range(1000))
    Path("pipelines.yaml").write_text(text + children)
    with in_time(), pytest.raises(SpecError, match="more than can be checked at once"):
        load(Path("pipelines.yaml"))
    (line,) = said(text.replace("        v1: {", "        another: {noise: 1.5}\n        v1: {"))
    assert "evaluate.shifted: expected at most 100 of them, found a mapping with v0, another, v1" in line


def test_file_of_mistakes_is_named_in_part(folder: Path) -> None:
    unknown = "".join(f"    sed{number}: 1\n" for number in range(9000))
    lines = said(SINUSOID + unknown)
    assert 100 < len(lines) < 500


@pytest.mark.parametrize("range_", ["{low: 1, high: 1" + "0" * 400 + "}", f"{{choices: [{', '.join(map(str, range(1, 6000)))}]}}"])
def test_search_of_very_many_values_is_checked_in_time(folder: Path, range_: str) -> None:
    text = f"    sweep:\n      trials: 3\n      parameters:\n        train.inner.steps: {range_}\n"
    Path("pipelines.yaml").write_text(SINUSOID + text)
    with in_time():
        mistakes = mistakes_of(Path("pipelines.yaml"))
    assert len(mistakes) <= 1


def test_searched_key_of_very_many_parts(folder: Path) -> None:
    text = f"    sweep:\n      trials: 3\n      parameters:\n        ? train{'.a' * 3000}\n        : {{low: 1, high: 2}}\n"
    (line,) = said(SINUSOID + text)
    assert "no key that the objective depends on" in line


# --- options ---


@pytest.mark.parametrize(
    ("option", "line"),
    [
        (".".join(["a"] * 3000) + "=1", "a key of 3,000 parts, expected a few, as in train.outer.lr"),
        ("train.inner=" + "{a: " * 3000 + "1" + "}" * 3000, "train.inner: more than 32 levels of nesting, expected a few"),
        ("seed=" + "9" * 5000, "seed: found a number of 5000 digits, expected a smaller one"),
        (r'description="\e[31m"', "description: character U+001B is a control character, expected printable text"),
        ("description=a\udcff", "description: character U+DCFF cannot stand in YAML, expected printable text"),
        ("\x1b[31m=1", r"\x1b[31m: unknown key, expected extends, description, seed, seeds, splits, device, generate, train, evaluate, log, sweep or schedule"),
    ],
    ids=lambda text: text[:12].encode("unicode_escape").decode(),
)  # fmt: skip
def test_option_without_measure_is_one_line(folder: Path, option: str, line: str) -> None:
    (only,) = said(SINUSOID, {"waves": [option]})
    assert only.startswith("--set ")
    assert only.endswith(line)


# --- from Python and through the API ---


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("description", "\x1b[31m"),
        ("train.model.arguments", {"text": ["\x07"]}),
        ("train.model.arguments", {"\x07": 1}),
        ("log.experiment", "a\x00b"),
        ("description", "a" * 10_001),
        ("train.model.arguments", {"deep": json.loads("[" * 900 + "]" * 900)}),
        ("train.model.arguments", json.loads('{"a": ' * 900 + "1" + "}" * 900)),
    ],
)
def test_what_no_file_may_hold_reaches_no_spec(place: str, value: Any) -> None:
    train: dict[str, Any] = {"model": {"name": "module", "path": "a:B"}, "iterations": 1, "shots": 1, "queries": 1}
    plain: dict[str, Any] = {"name": "x", "generate": {"distribution": "sinusoid"}, "train": train, "log": {}}
    PipelineSpec.model_validate(plain)
    *blocks, key = place.split(".")
    inner = plain
    for block in blocks:
        inner = inner[block]
    inner[key] = value
    with pytest.raises(ValidationError, match=r"is a control character|a text of 10001 characters|more than 32 levels of nesting"):
        PipelineSpec.model_validate(plain)


# --- paths ---


def test_folder_of_a_user_who_is_not_there(folder: Path) -> None:
    text = (MISTAKES / "right" / "omniglot.yaml").read_text()
    assert said(text.replace("distribution: omniglot", "distribution: omniglot\n      folder: ~nosuchuser/x")) == [
        'pipelines.yaml:5:15: letters.generate.folder: expected a path (no user nosuchuser on this machine), found "~nosuchuser/x"'
    ]


def test_modules_beside_a_link_to_itself(folder: Path) -> None:
    Path("loop.yaml").symlink_to("loop.yaml")
    assert user_source.beside(Path("loop.yaml")) == folder.resolve()


# --- anything ---


@st.composite
def mutations(draw: st.DrawFn) -> str:
    """A right file with pieces of it cut out, repeated, moved, and replaced by others and by characters that mean something."""
    text = draw(st.sampled_from(BASES))
    if len(text) > 4000:  # a part of the shipped file, cut at lines
        lines = text.splitlines(keepends=True)
        start = draw(st.integers(0, len(lines) - 40))
        text = "pipelines:\n" + "".join(lines[start : start + draw(st.integers(5, 80))])
    rng = random.Random(draw(st.integers(0, 2**32)))
    for _ in range(draw(st.integers(1, 6))):
        at, length = rng.randrange(len(text) + 1), rng.choice([0, 1, 1, 2, 5, 20, 100])
        piece = text[at : at + length]
        other = rng.choice(
            [*NASTY, rng.choice(NASTY) * rng.choice([2, 10, 300]), piece * rng.choice([0, 2, 50]), text[: rng.randrange(200)]]
        )
        text = text[:at] + other + text[at + length :]
    return text


NASTY = [
    *"[]{}:,-?#&*!|>'\"%@`\n\t \\<=.~0eE+_/ü\x85\u2028\ufeff\x1b\x00",
    *(": ", "- ", "\n  ", "? ", "<<: ", "*a", "&a ", "!!int ", "!!binary ", "---\n", "...\n", "%YAML 1.1\n", "null", "true", "~"),
    *("9" * 400, "1e999", "-1", "0", "1.5", ".nan", "-.inf", "0x", "extends: ", "include: ", "pipelines:", "module", "a:b", "os:system"),
    *(r'"\ud800"', r'"\e"', "[[[[", "{{{{", "]]]]", "}}}}", "- - - -", "shifted: {a: {", "sweep: {parameters: {train.shots: {"),
]  # fmt: skip


@given(mutations())
@example("")
@example("pipelines: {a: {extends: a}}")
@example("pipelines: {a: {train: {model: {name: module, path: 'os:system'}}}}")
@example("pipelines: {a: {generate: {distribution: 'os:system'}}}")
@example("pipelines: {a: {evaluate: {metrics: ['os:system']}}}")
@example("pipelines: {a: {train: {baselines: ['os:system', 3]}}}")
def test_anything_is_read_or_refused_in_time(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    file = tmp_path_factory.getbasetemp() / "anything.yaml"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    with in_time():
        mistakes = mistakes_of(file)
    assert all(str(mistake).isprintable() for mistake in mistakes)
    for name, spec in ({} if mistakes else load(file)).items():
        file.write_text(spec_yaml(spec))
        assert load(file) == {name: spec}
