# ruff: noqa: E501
"""A file that includes others: their pipelines by name, and mistakes named in the file in which they were made."""

import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from metaopt_core.distributions.omniglot import OmniglotSpec
from metaopt_core.spec.loader import Pipelines, SpecError, load

SHARED = """\
pipelines:
  waves:
    generate: {distribution: sinusoid}
    train: {model: {name: mlp}, iterations: 100, shots: 5, queries: 10}
  letters:
    generate: {distribution: omniglot, folder: data}
    train: {model: {name: conv4}, iterations: 100, ways: 5, shots: 1, queries: 1}
"""
OWN = "include: ../shared.yaml\npipelines:\n  mine: {extends: waves, train: {iterations: 7}}\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own").mkdir()
    (tmp_path / "shared.yaml").write_text(SHARED)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(text: str, **options: Sequence[str]) -> Pipelines:
    Path("own/pipelines.yaml").write_text(text)
    return load(Path("own/pipelines.yaml"), options)


def complaints(text: str, **options: Sequence[str]) -> list[str]:
    with pytest.raises(SpecError) as error:
        read(text, **options)
    return str(error.value).split("\n")


def folder_of(specs: Pipelines, name: str) -> str | None:
    generate = specs[name].generate
    assert isinstance(generate, OmniglotSpec)
    return generate.folder


def test_pipelines_of_an_included_file_are_extended_and_known_by_name() -> None:
    specs = read(OWN, waves=["train.shots=3"])
    assert list(specs) == ["mine", "waves", "letters"]
    assert (specs["mine"].train.iterations, specs["mine"].train.shots) == (7, 5)
    assert specs["waves"].train.shots == 3
    assert specs.included == {"waves": "shared.yaml", "letters": "shared.yaml"}


def test_file_may_do_nothing_but_include() -> None:
    assert list(read("include: [../shared.yaml]\n")) == ["waves", "letters"]


def test_includes_reach_through_files_and_each_is_read_once() -> None:
    Path("middle.yaml").write_text("include: ./shared.yaml\npipelines: {between: {extends: waves}}\n")
    specs = read("include: [../middle.yaml, ../own/../shared.yaml]\npipelines: {mine: {extends: between}}\n")
    assert list(specs) == ["mine", "waves", "letters", "between"]


def test_relative_folder_of_data_lies_beside_the_file_in_which_it_is_written(folder: Path) -> None:
    specs = read(
        "include: ../shared.yaml\npipelines:\n  a: {extends: letters}\n  b: {extends: letters, generate: {folder: data}}\n"
    )
    assert [folder_of(specs, name) for name in ("letters", "a", "b")] == [f"{folder}/data", f"{folder}/data", f"{folder}/own/data"]
    assert folder_of(read(OWN, letters=["generate.folder=else"]), "letters") == f"{folder}/own/else"


def test_mistake_is_named_in_the_file_in_which_it_was_made() -> None:
    Path("shared.yaml").write_text(SHARED.replace("shots: 5", "shots: 0"))
    assert complaints(OWN.replace("iterations: 7", "iterations: 0")) == [
        "shared.yaml:4:57: waves.train.shots: expected a whole number of at least 1, or two as in {low: 4, high: 50}, found 0",
        "own/pipelines.yaml:3:46: mine.train.iterations: expected a whole number of at least 1, found 0",
    ]


def test_file_that_is_no_yaml_is_named_once() -> None:
    Path("shared.yaml").write_text("pipelines: {waves\n")
    assert complaints(OWN) == ["shared.yaml:1:12: the mapping is not closed, expected , or }"]
    Path("shared.yaml").write_bytes(b"\xff")
    assert complaints(OWN) == ["shared.yaml:1:1: byte 0xFF is not UTF-8, expected text in UTF-8"]


@pytest.mark.parametrize(
    ("include", "line"),
    [
        ("../nothing.yaml", "1:10: include: nothing.yaml: no such file, expected a pipelines file"),
        ("..", "1:10: include: .: a directory, expected a file, such as pipelines.yaml"),
        ("[../shared.yaml, ./nothing.yaml]", "1:27: include: own/nothing.yaml: no such file, expected a pipelines file"),
        ("~nosuchuser/x.yaml", '1:10: include: "~nosuchuser/x.yaml": no user nosuchuser on this machine: expected a path as in /data, or ./~nosuchuser'),
        ("3", "1:10: include: expected a path or a list of paths, found 3"),
        ("", "1:9: include: expected a path or a list of paths, found nothing"),
        ("[]", "1:10: include: expected a path or a list of paths, found []"),
        ("[{file: x}]", "1:11: include: expected a path or a list of paths, found a mapping with file"),
        ("pipelines.yaml", "1:10: include: a circle (own/pipelines.yaml includes own/pipelines.yaml), expected a file that does not include this one"),
    ],
)  # fmt: skip
def test_what_cannot_be_included_is_said_where_it_is_asked_for(include: str, line: str) -> None:
    assert complaints(f"include: {include}\npipelines: {{mine: {{extends: gone}}}}\n")[0] == f"own/pipelines.yaml:{line}"


def test_pipeline_that_an_unread_file_may_hold_is_not_called_unknown() -> None:
    assert len(complaints("include: nothing.yaml\npipelines: {mine: {extends: waves}}\n")) == 1


def test_circle_of_files() -> None:
    Path("shared.yaml").write_text(f"include: own/other.yaml\n{SHARED}")
    Path("own/other.yaml").write_text("include: ../shared.yaml\n")
    assert complaints(OWN) == [
        "own/other.yaml:1:10: include: a circle (shared.yaml includes own/other.yaml includes shared.yaml), "
        "expected a file that does not include this one"
    ]


def test_name_that_is_defined_twice() -> None:
    text = "include: [../shared.yaml, ../second.yaml]\npipelines:\n  waves: {extends: letters}\n"
    Path("second.yaml").write_text("pipelines:\n  letters: {extends: waves}\n")
    assert complaints(text) == [
        "own/pipelines.yaml:3:3: waves: also defined in shared.yaml:2:3, expected another name: with `extends: waves` it inherits those settings",
        "second.yaml:2:3: letters: also defined in shared.yaml:5:3, expected another name: with `extends: letters` it inherits those settings",
    ]  # fmt: skip


def test_unknown_pipeline_is_told_what_there_is_in_all_files() -> None:
    assert complaints("include: ../shared.yaml\npipelines: {mine: {extends: zzz}}\n") == [
        "own/pipelines.yaml:2:29: mine.extends: no pipeline zzz in this file and what it includes, expected waves or letters; "
        "`include: FILE` at the top adds those of another file"
    ]


# --- files that nobody should have to wait for ---


def test_pipe_is_not_waited_for() -> None:
    os.mkfifo("pipe")
    start = time.perf_counter()
    with pytest.raises(SpecError) as error:
        load(Path("pipe"))
    assert str(error.value) == "pipe: a pipe or a device, expected a pipelines file"
    assert complaints("include: ../pipe\n") == [
        "own/pipelines.yaml:1:10: include: pipe: a pipe or a device, expected a pipelines file"
    ]
    assert time.perf_counter() - start < 2


def test_endless_file_is_not_read() -> None:
    with Path("large.yaml").open("wb") as file:
        file.truncate(10**12)
    with pytest.raises(SpecError, match=r"^large.yaml: larger than 256 KB, expected a smaller file: it can `include` others$"):
        load(Path("large.yaml"))
    with pytest.raises(SpecError, match=r"^/dev/zero: a pipe or a device, expected a pipelines file$"):
        load(Path("/dev/zero"))


def test_files_that_include_each_other_are_limited() -> None:
    for number in range(60):
        Path(f"{number}.yaml").write_text(f"include: {number + 1}.yaml\n")
    Path("60.yaml").write_text(SHARED)
    with pytest.raises(SpecError) as error:
        load(Path("0.yaml"))
    assert str(error.value) == "49.yaml:1:10: include: more than 50 files, expected fewer"
    assert list(load(Path("20.yaml"))) == ["waves", "letters"]


def test_link_to_itself_is_said_to_be_unreadable() -> None:
    Path("loop.yaml").symlink_to("loop.yaml")
    with pytest.raises(
        SpecError, match=r"^loop.yaml: cannot be read \(Too many levels of symbolic links\), expected a pipelines file$"
    ):
        load(Path("loop.yaml"))
