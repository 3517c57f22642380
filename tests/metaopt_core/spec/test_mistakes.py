# ruff: noqa: E501
"""Mistakes in a pipelines file, and the exact lines that the user reads about each.

`mistakes/*.yaml` hold those that take one change to make: a right file, a text in it, what replaces that text, and what is said.
"""

import os
from pathlib import Path
from typing import Any

import pytest

from metaopt_core.errors import UserError
from metaopt_core.spec.document import read_file
from metaopt_core.spec.loader import SpecError, load

MISTAKES = Path(__file__).parent / "mistakes"
RIGHT = {path.stem: path.read_text() for path in sorted((MISTAKES / "right").glob("*.yaml"))}


def cases() -> list[Any]:
    """The text of a wrong file, and the lines that are said of it, for each mistake of the tables."""
    found = []
    for path in sorted(MISTAKES.glob("*.yaml")):
        table, wrong = read_file(path.read_text(), path.name)
        assert table is not None
        assert wrong == []
        for name, case in table.plain().items():
            text = case.get("text")
            if text is None:
                right = RIGHT[case["file"]]
                assert case["replace"] in right, name
                text = right.replace(case["replace"], case["by"], 1)
            says = case["says"] if isinstance(case["says"], list) else [case["says"]]
            found.append(pytest.param(text, says, id=f"{path.stem}/{name}"))
    return found


def said(text: str) -> list[str]:
    Path("pipelines.yaml").write_text(text)
    with pytest.raises(SpecError) as error:
        load(Path("pipelines.yaml"))
    assert isinstance(error.value, UserError)
    return str(error.value).split("\n")


@pytest.mark.parametrize("name", RIGHT)
def test_files_that_the_mistakes_are_made_in_are_right(name: str, tmp_path: Path) -> None:
    path = tmp_path / "pipelines.yaml"
    path.write_text(RIGHT[name])
    assert len(load(path)) == 1


@pytest.mark.parametrize(("text", "lines"), cases())
def test_mistake_is_named_at_its_place(text: str, lines: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert said(text) == lines


def test_number_of_thousands_of_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert said(RIGHT["sinusoid"].replace("seed: 1", f"seed: {'9' * 5000}")) == [
        "pipelines.yaml:3:11: waves.seed: found a number of 5000 digits, expected a smaller one"
    ]


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ("description: \x07", "3:18: character U+0007 cannot stand in YAML, expected printable text"),
        (r'description: "\e[31m"', "3:18: waves.description: character U+001B is a control character, expected printable text"),
        (
            r'description: "\ud800"',
            "3:18: waves.description: character U+D800 is half of a surrogate pair, expected printable text",
        ),
        (r'description: "\r"', "3:18: waves.description: character U+000D is a control character, expected printable text"),
        (r'"\e[31m": 1', "3:5: waves.\\x1b[31m: character U+001B is a control character, expected printable text"),
    ],
)
def test_character_that_no_terminal_is_to_get(wrong: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert said(RIGHT["sinusoid"].replace("seed: 1", wrong)) == [f"pipelines.yaml:{line}"]


def test_file_is_shown_as_the_user_named_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("conf").mkdir()
    Path("conf/mine.yaml").write_text("pipelines: 3\n")
    with pytest.raises(SpecError, match=r"^conf/mine\.yaml:1:12: pipelines: expected a mapping from names to pipelines, found 3$"):
        load(Path("conf/mine.yaml"))


def test_missing_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError) as error:
        load(Path("pipelines.yaml"))
    assert str(error.value) == "pipelines.yaml: no such file, expected a pipelines file (-f FILE names another one)"


def test_folder_instead_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("conf").mkdir()
    with pytest.raises(SpecError) as error:
        load(Path("conf"))
    assert str(error.value) == "conf: a directory, expected a file, such as conf/pipelines.yaml"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pipelines.yaml").write_text(RIGHT["sinusoid"])
    Path("pipelines.yaml").chmod(0)
    with pytest.raises(SpecError) as error:
        load(Path("pipelines.yaml"))
    assert str(error.value) == "pipelines.yaml: cannot be read (Permission denied), expected a pipelines file"


def test_bytes_that_are_no_utf8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pipelines.yaml").write_bytes("pipelines:\n  wäves: {}\n".encode("latin-1"))
    with pytest.raises(SpecError) as error:
        load(Path("pipelines.yaml"))
    assert str(error.value) == "pipelines.yaml:2:4: byte 0xE4 is not UTF-8, expected text in UTF-8"


def test_every_tab_that_indents_a_line_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pipelines.yaml").write_text("pipelines:\n\twaves:\n\t\tseed: 1\n  \tmore: 2\n")
    with pytest.raises(SpecError) as error:
        load(Path("pipelines.yaml"))
    assert str(error.value).split("\n") == [
        "pipelines.yaml:2:1: a tab, expected spaces",
        "pipelines.yaml:3:1: a tab, expected spaces",
        "pipelines.yaml:4:3: a tab, expected spaces",
    ]


def test_all_mistakes_are_named_at_once_in_the_order_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pipelines.yaml").write_text("""\
version: 1
pipelines:
  waves:
    seed: -1
    seed: 2
    generate:
      distribution: sinusoid
      phase: [3, 1]
    train:
      model:
        name: mlp
        hiden: [40]
      iterations: many
      shots: 5
    schedule:
      cron: 99 * * * *
  letters:
    device: gpu
    generate:
      distribution: omniglot
      characters: {train: 1500}
    train:
      model: {name: conv4}
      iterations: 10
      ways: 30
      shots: 15
      queries: 15
    log:
      experiment: 5
""")
    with pytest.raises(SpecError) as error:
        load(Path("pipelines.yaml"))
    assert str(error.value).split("\n") == [
        "pipelines.yaml:1:1: version: unknown key, expected pipelines or include",
        "pipelines.yaml:4:11: waves.seed: expected a whole number from 0 to 9223372036854775807, found -1",
        "pipelines.yaml:5:5: waves.seed: duplicate key, expected it once: it is already set in line 4",
        "pipelines.yaml:8:14: waves.generate.phase: expected two numbers, the smaller one first, found [3, 1]",
        "pipelines.yaml:9:5: waves.train.queries: missing, expected a whole number of at least 1",
        "pipelines.yaml:12:9: waves.train.model.hiden: unknown key, did you mean hidden?",
        'pipelines.yaml:13:19: waves.train.iterations: expected a whole number of at least 1, found "many"',
        'pipelines.yaml:16:13: waves.schedule.cron: expected a cron expression of five fields, as in 0 3 * * * (bad minute), found "99 * * * *"',
        'pipelines.yaml:18:13: letters.device: expected auto, cpu or cuda, found "gpu", did you mean cuda?',
        "pipelines.yaml:21:7: letters.generate.characters: 2023 characters in all, but Omniglot has 1623: expected at most that many",
        "pipelines.yaml:22:5: letters.train: 15 shots and 15 queries, but a character has 20 drawings: expected at most that many together",
        "pipelines.yaml:25:7: letters.train.ways: 30 ways, but held-out tasks store 20 classes: expected at most that many, or a larger generate.held_out_ways",
        "pipelines.yaml:29:19: letters.log.experiment: expected non-empty text or null, found 5",
    ]
    assert [mistake.place.line for mistake in error.value.mistakes] == [1, 4, 5, 8, 9, 12, 13, 16, 18, 21, 22, 25, 29]
    assert error.value.mistakes[5].path == "waves.train.model.hiden"
