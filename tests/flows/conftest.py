"""A folder with a tiny pipeline, and the command as a user runs it: a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

TINY = """
pipelines:
  tiny:
    description: A few iterations.
    generate:
      distribution: sinusoid
      held_out: {validation_tasks: 4, test_tasks: 8}
    train:
      model: {name: mlp, hidden: [8]}
      iterations: 6
      meta_batch_size: 4
      shots: 5
      queries: 5
      validation: {every: 3, steps: 2}
    evaluate: {steps: 3}
"""


@dataclass(frozen=True)
class Project:
    """A folder with a pipelines file, and so with a home of its own. api: the Prefect server of its runs; none: one for each."""

    folder: Path
    api: str | None = None

    @property
    def home(self) -> Path:
        return self.folder / ".metaopt"

    @property
    def environment(self) -> dict[str, str]:
        not_theirs = {"METAOPT_HOME", "PREFECT_HOME", "PREFECT_API_URL"}
        inherited = {name: value for name, value in os.environ.items() if name not in not_theirs}
        return inherited | ({"PREFECT_API_URL": self.api} if self.api else {})

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-P", "-m", "flows", *arguments]

    def metaopt(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    def json(self, *arguments: str) -> Any:
        done = self.metaopt(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    @contextmanager
    def started(self, *arguments: str, log: Path, **environment: str) -> Iterator["subprocess.Popen[str]"]:
        """A command that goes on until the block is left; both of its streams go to a file."""
        with log.open("w") as output:
            process = subprocess.Popen(
                self.command(*arguments),
                cwd=self.folder,
                env=self.environment | environment,
                stdout=output,
                stderr=output,
                text=True,
            )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def project_in(folder: Path, text: str = TINY, api: str | None = None) -> Project:
    """In its folder lies a module with the name of one that everything imports: no process of ours may run it from there."""
    (folder / "pipelines.yaml").write_text(text)
    trap = "from pathlib import Path\nPath(__file__).with_name('trapped').touch()\nraise SystemExit('of the current folder')\n"
    (folder / "random.py").write_text(trap)
    return Project(folder, api)


@pytest.fixture(scope="session")
def shared_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prefect server for the runs of tests that need none of their own, which takes as long to start as a tiny run takes."""
    from tests.flows.running import up

    with up(project_in(tmp_path_factory.mktemp("shared"))) as servers:
        yield servers.api


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return project_in(tmp_path)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose pipeline has been run once. Tests that share it leave it up to date."""
    project = project_in(tmp_path_factory.mktemp("ran"))
    first = project.metaopt("run", "tiny", "--json")
    assert first.returncode == 0, first.stderr
    (project.folder / "first.json").write_text(first.stdout)
    return project


HEAVY = ("torch", "prefect", "mlflow", "pandas", "matplotlib")


def imports_of(project: Project, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """The command in a fresh interpreter that says at the end which heavy libraries it has imported."""
    code = (
        "import sys\nfrom flows.__main__ import main\n"
        f"sys.argv = {['metaopt', *arguments]!r}\n"
        "try:\n    main()\nfinally:\n"
        f"    print('heavy:', *[name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
    )
    return subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=project.folder,
        env=project.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
