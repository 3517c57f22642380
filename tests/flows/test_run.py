"""`metaopt run` from end to end, embedded, as a user runs it."""

import json
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.flows.conftest import TINY, Project, imports_of, project_in

pytestmark = pytest.mark.slow


def _statuses(document: dict[str, Any]) -> dict[str, str]:
    return {stage["stage"]: stage["status"] for stage in document["stages"]}


def _mlflow_runs(project: Project) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{project.home / 'mlflow' / 'mlflow.db'}")
    return list(client.search_runs([experiment.experiment_id for experiment in client.search_experiments()]))


def test_the_first_run_carries_out_all_stages(ran: Project) -> None:
    document = json.loads((ran.folder / "first.json").read_text())
    assert set(_statuses(document).values()) == {"ran"}
    assert len(document["results"]["methods"]["maml"]["steps"]) == 4  # 0 … evaluate.steps
    assert all(Path(figure).is_file() for figure in document["figures"])
    assert document["mlflow"]["run_id"] == _mlflow_runs(ran)[0].info.run_id


def test_all_state_lies_in_the_home(ran: Project) -> None:
    assert {path.name for path in ran.folder.iterdir()} == {"pipelines.yaml", "random.py", ".metaopt", "first.json"}


def test_a_second_run_does_no_work_and_shows_the_results_again(ran: Project) -> None:
    started = time.monotonic()
    done = ran.metaopt("run", "tiny")
    assert time.monotonic() - started < 15
    assert done.returncode == 0
    assert done.stderr.splitlines() == [f"{stage}: up to date" for stage in ("generate", "train", "evaluate", "log")]
    assert "Mean squared error by number of adaptation steps" in done.stdout
    assert "metaopt up" in done.stdout
    assert len(_mlflow_runs(ran)) == 1


def test_quiet_leaves_the_verdict_and_the_report(ran: Project) -> None:
    done = ran.metaopt("run", "tiny", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("After 2 adaptation steps on 5 examples, MAML reaches")
    assert [line for line in lines if "report.html" in line] == [lines[-1]]
    assert "number of adaptation steps" not in done.stdout


def test_verbose_shows_every_table_and_figure(ran: Project) -> None:
    done = ran.metaopt("run", "tiny", "--verbose")
    assert done.returncode == 0
    assert done.stdout.count(".png") == 6


@pytest.mark.parametrize("stage", ["generate", "train"])
def test_a_stage_alone_shows_what_is_new_and_no_old_table(ran: Project, stage: str) -> None:
    done = ran.metaopt("run", "tiny", "--only", stage)
    assert done.returncode == 0
    assert "adaptation steps" not in done.stdout
    assert "report" not in done.stdout


def test_past_runs_are_listed_and_shown_without_pytorch(ran: Project) -> None:
    (listed,) = ran.json("runs", "tiny")
    results = json.loads((ran.folder / "first.json").read_text())["results"]
    assert listed["results"]["loss"] == results["methods"]["maml"]["steps"][2]["loss"]
    started = time.monotonic()
    done = imports_of(ran, "runs")
    assert done.stderr.splitlines()[-1] == "heavy:"
    assert listed["id"] in done.stdout
    assert time.monotonic() - started < 5  # 2 on a quiet machine


def test_prefect_knows_every_flow_and_task_as_completed(ran: Project) -> None:
    with sqlite3.connect(ran.home / "prefect" / "prefect.db") as database:
        flows = database.execute("select f.name, r.state_name from flow_run r join flow f on f.id = r.flow_id").fetchall()
        tasks = database.execute("select state_name from task_run where flow_run_id is not null").fetchall()
    assert sorted(flows) == sorted((name, "Completed") for name in ("pipeline", "generate", "train", "evaluate", "log"))
    assert {state for (state,) in tasks} == {"Completed"}


def test_damage_and_a_changed_value_re_run_what_they_concern_alone(tmp_path: Path, shared_api: str) -> None:
    project = project_in(tmp_path, api=shared_api)
    first = project.json("run", "tiny", "--to", "evaluate")
    assert _statuses(first) == {"generate": "ran", "train": "ran", "evaluate": "ran", "log": "not selected"}
    parameters = Path(first["stages"][1]["folder"]) / "parameters.safetensors"
    sound = parameters.read_bytes()
    parameters.write_bytes(sound[:-1])

    second = project.json("run", "tiny", "--set", "evaluate.steps=2")
    assert _statuses(second) == {"generate": "up to date", "train": "ran", "evaluate": "ran", "log": "ran"}
    assert "damaged file" in second["stages"][1]["reasons"][0]
    assert second["stages"][2]["reasons"] == ["evaluate.steps: 3 → 2"]
    assert parameters.read_bytes() == sound
    assert len(_mlflow_runs(project)) == 2  # two specs were evaluated: two executions


def test_force_replaces_what_it_was_asked_to_and_nothing_else(tmp_path: Path, shared_api: str) -> None:
    project = project_in(tmp_path, api=shared_api)
    first = project.json("run", "tiny")
    report = Path(first["stages"][3]["folder"]) / "report.html"
    before = {path: path.stat().st_ino for path in (project.home / "outputs").rglob("*") if path.is_file()}

    planned = project.json("plan", "tiny", "--only", "train", "--force")
    forced = project.metaopt("run", "tiny", "--only", "train", "--force")
    assert forced.returncode == 0, forced.stderr
    assert planned["stages"][1]["reasons"] == ["--force"]
    assert "train: --force" in forced.stderr.splitlines()
    after = {path: path.stat().st_ino for path in (project.home / "outputs").rglob("*") if path.is_file()}
    outputs = project.home / "outputs"
    assert {path.relative_to(outputs).parts[0] for path in after if after[path] != before.get(path)} == {"train"}
    assert report.is_file()
    assert sorted(run.info.run_name for run in _mlflow_runs(project)) == [
        f"tiny-{first['stages'][3]['fingerprint'][:8]}{end}" for end in ("", "-2")
    ]
    assert set(_statuses(project.json("plan", "tiny")).values()) == {"up to date"}  # the same numbers came out


def test_a_forced_run_that_was_killed_continues_without_another_force(tmp_path: Path, shared_api: str) -> None:
    arguments = ["tiny", "--to", "train", "--set", "train.iterations=4000", "--set", "train.checkpoint_every=0.1"]
    project, log = project_in(tmp_path, api=shared_api), tmp_path / "log"
    folder = Path(project.json("run", *arguments)["stages"][1]["folder"])
    old = (folder / "manifest.json").read_bytes(), (folder / "parameters.safetensors").read_bytes()
    with project.started("run", *arguments, "--force", log=log) as process:
        _wait_for(lambda: list((project.home / "checkpoints").rglob("maml.safetensors")), process, log)
        process.kill()
    assert (folder / "manifest.json").read_bytes() == old[0]
    planned = project.json("plan", *arguments)["stages"][1]
    assert planned["status"] == "would run"
    assert planned["reasons"][0].startswith("--force, continues at iteration ")
    continued = project.metaopt("run", *arguments)
    assert continued.returncode == 0, continued.stderr
    assert f"train: {planned['reasons'][0]}" in continued.stderr.splitlines()
    assert (folder / "manifest.json").read_bytes() != old[0]
    assert (folder / "parameters.safetensors").read_bytes() == old[1]
    assert _statuses(project.json("plan", *arguments))["train"] == "up to date"
    assert len(_mlflow_runs(project)) == 2


def _wait_for(found: Callable[[], Any], process: "subprocess.Popen[str]", log: Path) -> None:
    deadline = time.monotonic() + 120
    while not found():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)


def test_runs_started_at_once_on_an_empty_folder_all_finish(tmp_path: Path) -> None:
    project = project_in(tmp_path, TINY + "  tiny-1: {extends: tiny, seed: 1}\n")
    names = ["tiny", "tiny-1", "tiny-1"]  # two of them make the same outputs
    started = [
        subprocess.Popen(
            project.command("run", name, "--json"),
            cwd=tmp_path,
            env=project.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in names
    ]
    for process in started:
        output, errors = process.communicate(timeout=280)
        assert process.returncode == 0, errors
        assert json.loads(output)["mlflow"]["run_id"]
    assert len(_mlflow_runs(project)) == 2


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_training_says_how_to_go_on_and_goes_on(tmp_path: Path, number: signal.Signals, status: int) -> None:
    project = project_in(tmp_path)
    arguments = ["run", "tiny", "--to", "train", "--set", "train.iterations=1000000", "--set", "train.checkpoint_every=0.2"]
    log = tmp_path / "log"
    with project.started(*arguments, log=log) as process:
        deadline = time.monotonic() + 120
        while not any((project.home / "checkpoints").rglob("*")):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        time.sleep(1)
        os.kill(process.pid, number)
        assert process.wait(60) == status, log.read_text()
    text = log.read_text()
    assert "Traceback" not in text, text
    assert f"metaopt {' '.join(arguments)}" in text.splitlines()[-1]
    assert any((project.home / "checkpoints").rglob("*"))
    assert [run.info.status for run in _mlflow_runs(project)] == ["KILLED"]


def test_killed_training_goes_on_in_one_mlflow_run(tmp_path: Path, shared_api: str) -> None:
    arguments = ["run", "tiny", "--set", "train.iterations=2000", "--set", "train.checkpoint_every=0.1"]
    project, log = project_in(tmp_path, api=shared_api), tmp_path / "log"
    with project.started(*arguments, log=log) as process:
        deadline = time.monotonic() + 120
        while not list((project.home / "checkpoints").rglob("maml.safetensors")):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        process.kill()
    assert not (project.home / "outputs" / "train").exists() or not list(
        (project.home / "outputs" / "train").glob("*/manifest.json")
    )
    resumed = project.json(*arguments)
    assert _statuses(resumed) == {"generate": "up to date", "train": "ran", "evaluate": "ran", "log": "ran"}

    (run,) = _mlflow_runs(project)
    assert run.info.status == "FINISHED"
    with sqlite3.connect(project.home / "mlflow" / "mlflow.db") as database:
        points = database.execute("select key, step from metrics where key like 'meta_train/%'").fetchall()
    assert ("meta_train/loss/maml", 2000) in points
    assert len(points) == len(set(points))


def test_a_mistake_that_shows_in_a_running_stage_is_plain_words(tmp_path: Path) -> None:
    project = project_in(tmp_path)
    done = project.metaopt("run", "tiny", "--set", "train.inner.lr=1e30")  # diverges at once: a loss is not finite
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "MAML: the loss of meta-train task" in done.stderr
    assert "expected a finite number" in done.stderr
