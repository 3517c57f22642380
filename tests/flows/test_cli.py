"""The command line from outside: what it prints, how it exits, and how little it imports for it."""

import json
import re
import resource
import signal
import socket
import subprocess
import sys

import pytest

from tests.flows.conftest import Project, imports_of


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["list"], 0),
        (["list", "--json"], 0),
        (["plan", "tiny"], 0),
        (["schema"], 0),
        (["--version"], 0),
        (["run", "tiny", "--set", "train.iterations=none"], 2),
        (["run", "tinny"], 2),
    ],
)
def test_planning_and_mistakes_answer_at_once(project: Project, arguments: list[str], status: int) -> None:
    before = _seconds_of_children()
    done = imports_of(project, *arguments)
    seconds = _seconds_of_children() - before
    assert done.returncode == status, done.stderr
    assert done.stderr.splitlines()[-1] == "heavy:"
    assert "Traceback" not in done.stderr
    assert seconds < 2


def _seconds_of_children() -> float:
    """Of CPU: how long a busy machine lets them wait is not theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_an_output_that_takes_no_such_characters_is_said_in_a_line(project: Project) -> None:
    done = project.metaopt("show", "tiny", "--set", "description=für", PYTHONIOENCODING="ascii")
    assert done.returncode == 2
    assert done.stderr == "standard output takes ascii only: PYTHONIOENCODING=utf-8 changes that\n"


INTERRUPTED = """
import os, signal, sys
from importlib.abc import MetaPathFinder

class Interrupting(MetaPathFinder):
    def find_spec(self, name, *_):
        if name == sys.argv[-1]:
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Interrupting())
from flows.__main__ import main
main()
"""


@pytest.mark.parametrize("imported", ["typer", "pydantic"])
def test_ctrl_c_during_imports_ends_any_command_without_a_word(project: Project, imported: str) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", INTERRUPTED, "plan", imported],
        cwd=project.folder,
        env=project.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode in {-signal.SIGINT, 128 + signal.SIGINT}  # a shell says 130 of either
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "tinny"], "no pipeline tinny (did you mean tiny?)"),
        (["plan", "tiny", "--only", "trian"], "no such stage (did you mean train?)"),
        (["run", "tiny", "--only", "evaluate"], "metaopt run tiny --to train"),
        (["run", "tiny", "-f", "nowhere.yaml"], "nowhere.yaml"),
        (["serve", "tiny"], "metaopt up"),
        (["serve"], "no pipeline has a schedule"),
    ],
)
def test_a_users_mistake_is_plain_words_and_status_2(project: Project, arguments: list[str], message: str) -> None:
    done = project.metaopt(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_it_says_its_version(project: Project) -> None:
    assert re.fullmatch(r"metaopt \d+\.\d+\.\d+\n", project.metaopt("--version").stdout)


def test_without_arguments_it_teaches(project: Project) -> None:
    done = project.metaopt()
    assert done.returncode == 0
    assert all(command in done.stdout for command in ("run", "plan", "list", "schema", "serve", "up"))


@pytest.mark.parametrize("command", ["run", "plan", "list", "schema", "serve", "up"])
def test_every_commands_help_has_an_example(project: Project, command: str) -> None:
    done = project.metaopt(command, "--help")
    assert done.returncode == 0
    assert f"metaopt {command}" in done.stdout.split("Example", 1)[1]


def test_plan_says_a_line_a_stage(project: Project) -> None:
    lines = project.metaopt("plan", "tiny").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["generate", "train", "evaluate", "log"]
    assert all("would run: never run" in line for line in lines)


def test_list_is_json_where_a_program_asks(project: Project) -> None:
    (pipeline,) = project.json("list")
    assert pipeline["name"] == "tiny"
    assert pipeline["schedule"] is None


def test_the_file_option_stands_before_or_after_the_command(project: Project) -> None:
    (project.folder / "other.yaml").write_text((project.folder / "pipelines.yaml").read_text().replace("tiny:", "other:"))
    for arguments in (["-f", "other.yaml", "list"], ["list", "-f", "other.yaml"]):
        assert project.metaopt(*arguments).stdout.startswith("other ")


def test_the_home_lies_where_the_environment_says(project: Project) -> None:
    document = json.loads(project.metaopt("plan", "tiny", "--json", METAOPT_HOME=str(project.folder / "elsewhere")).stdout)
    assert document["home"] == str(project.folder / "elsewhere")


def test_up_names_a_taken_port_and_its_option(project: Project) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as free:
        port, other = taken.getsockname()[1], free.getsockname()[1]
        free.close()
        done = project.metaopt("up", "--mlflow-port", str(port), "--prefect-port", str(other))
    assert done.returncode == 2
    assert f"--mlflow-port {port}" in done.stderr


def test_show_prints_a_pipelines_file_that_means_the_same(project: Project) -> None:
    shown = project.metaopt("show", "tiny", "--set", "train.shots=3")
    assert shown.returncode == 0, shown.stderr
    (project.folder / "shown.yaml").write_text(shown.stdout)
    assert "shots: 3" in shown.stdout
    again = project.metaopt("show", "tiny", "-f", "shown.yaml")
    assert again.stdout == shown.stdout


def test_without_runs_there_is_nothing_to_list_or_compare(project: Project) -> None:
    assert project.json("runs") == []
    done = project.metaopt("runs")
    assert (done.returncode, done.stdout) == (0, "")
    assert "no runs yet" in done.stderr
    for arguments, message in (
        (["runs", "tiny"], "no run of tiny"),
        (["compare", "tiny", "other"], "no run of this id"),
        (["compare", "tiny"], "two runs or more"),
    ):
        done = project.metaopt(*arguments)
        assert done.returncode == 2
        assert message in done.stderr


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("metaopt ru", {"run", "runs"}),
        ("metaopt run ti", {"tiny"}),
        ("metaopt plan tiny --only ", {"generate", "train", "evaluate", "log"}),
        ("metaopt -f other.yaml run ", {"other"}),
        ("metaopt run -f nowhere.yaml ", set()),
    ],
)
def test_a_shell_is_offered_what_could_follow(project: Project, words: str, offered: set[str]) -> None:
    (project.folder / "other.yaml").write_text((project.folder / "pipelines.yaml").read_text().replace("tiny:", "other:"))
    done = project.metaopt(_METAOPT_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(len(words.split(" ")) - 1))
    assert done.stderr == ""
    assert set(done.stdout.split()) == offered


def test_quiet_and_verbose_exclude_each_other(project: Project) -> None:
    done = project.metaopt("run", "tiny", "--quiet", "--verbose")
    assert done.returncode == 2
    assert "--quiet and --verbose" in done.stderr


def test_help_shows_no_type_beside_an_option_without_value(project: Project) -> None:
    for command in ([], ["run"], ["serve"], ["runs"]):
        shown = project.metaopt(*command, "--help", COLUMNS="80").stdout
        assert "<bool>" not in shown
        assert "[[" not in shown
        assert max(map(len, shown.splitlines())) <= 80
