"""Hostile input through the command itself: status 2, no traceback, nothing written. (What is said is tested beside the reader.)"""

import os

import pytest

from tests.flows.conftest import Project


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (["plan", "tiny", "--set", ".".join(["a"] * 3000) + "=1"], {}),
        (["plan", "tiny", "--set", r'description="\e[31m\ud800"'], {}),
        (["plan", "tiny", "--set", "description=\udcff"], {}),
        (["plan", "tiny", "--set", "generate.held_out.test_tasks=99999999999999999999"], {}),
        (["plan", "tiny", "--set", "log.tracking_uri=http://[bad"], {}),
        (["plan", "tiny"], {"MLFLOW_TRACKING_URI": "http://[bad"}),
        (["run", "tiny"], {"METAOPT_HOME": "~nosuchuser"}),
        (["run", "tiny"], {"METAOPT_HOME": "pipelines.yaml"}),
        (["list", "-f", "pipe"], {}),
        (["list", "-f", "loop.yaml"], {}),
    ],
    ids=lambda value: str(value)[:40].encode("unicode_escape").decode(),
)
def test_command_refuses_in_one_line(project: Project, arguments: list[str], environment: dict[str, str]) -> None:
    os.mkfifo(project.folder / "pipe")
    (project.folder / "loop.yaml").symlink_to("loop.yaml")
    before = sorted(project.folder.rglob("*"))
    done = project.metaopt(*arguments, **environment)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.strip().isprintable()
    assert sorted(project.folder.rglob("*")) == before
