"""A command's pipeline is found by its name, with values changed for one run, and its registered model is not changed by chance."""

from pathlib import Path

import pytest

from flows import pipelines_file
from metaopt_core.errors import UserError
from metaopt_core.spec.schedule import CronSchedule, IntervalSchedule
from tests.flows.conftest import TINY


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "pipelines.yaml"
    path.write_text(TINY + "    log: {register_as: waves}\n")
    return path


def test_a_pipeline_with_a_value_changed(file: Path) -> None:
    assert pipelines_file.one(file, "tiny").train.iterations == 6
    assert pipelines_file.one(file, "tiny", ["train.iterations=7"]).train.iterations == 7


def test_a_mistyped_name_is_an_error_that_names_the_likely_one(file: Path) -> None:
    with pytest.raises(UserError, match=r"no pipeline tinny \(did you mean tiny\?\); expected one of tiny$"):
        pipelines_file.one(file, "tinny")


def test_only_the_pipeline_of_the_file_is_registered_unless_asked(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pipelines_file.to_run(file, "tiny", None, register=False).log.register_as == "waves"
    assert pipelines_file.to_run(file, "tiny", ["seed=1"], register=True).log.register_as == "waves"
    assert capsys.readouterr().err == ""
    assert pipelines_file.to_run(file, "tiny", ["seed=1"], register=False).log.register_as is None
    assert capsys.readouterr().err == "a run with --set adds no version of waves; --register adds one\n"


def test_registering_needs_the_name_of_a_model(file: Path) -> None:
    file.write_text(TINY)
    with pytest.raises(UserError, match=r"--register: tiny has no log\.register_as"):
        pipelines_file.to_run(file, "tiny", None, register=True)


def test_schedules_in_words() -> None:
    assert pipelines_file.when(IntervalSchedule(every="6h")) == "every 6h"
    assert pipelines_file.when(CronSchedule(cron="0 3 * * *", timezone="Europe/Berlin")) == "cron 0 3 * * * Europe/Berlin"
