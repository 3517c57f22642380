"""What a command says about its work goes to standard error, once, and less of it if it is to be quiet."""

import json
import logging
from collections.abc import Iterator

import pytest

from flows import console, planning
from flows.console import Detail
from metaopt_core.errors import UserError

LOGGER = logging.getLogger("prefect.flow_runs")


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    handlers, filters, level = [*LOGGER.handlers], [*LOGGER.filters], LOGGER.level
    yield
    console.show(Detail.NORMAL)
    LOGGER.handlers[:], LOGGER.filters[:] = handlers, filters
    LOGGER.setLevel(level)


def record(file: str, message: str, error: Exception | None = None) -> logging.LogRecord:
    raised = (type(error), error, None) if error else None
    return logging.LogRecord(LOGGER.name, logging.INFO, file, 1, message, (), raised)


def test_lines_go_to_standard_error_and_documents_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    console.say("training")
    console.print_json({"name": "Wärme"})
    out, err = capsys.readouterr()
    assert err == "training\n"
    assert json.loads(out) == {"name": "Wärme"}
    assert "Wärme" in out


def test_quiet_leaves_complaints_alone(capsys: pytest.CaptureFixture[str]) -> None:
    console.show(Detail.QUIET)
    console.say("training")
    console.complain("no such pipeline")
    assert capsys.readouterr().err == "no such pipeline\n"


def test_our_own_lines_are_shown_and_prefects_are_not(capsys: pytest.CaptureFixture[str]) -> None:
    LOGGER.handlers.clear()  # Prefect's own, which send lines to a server
    console.show_own_lines()
    LOGGER.handle(record(planning.__file__, "generate: never run"))
    LOGGER.handle(record("/site-packages/prefect/flow_engine.py", "Beginning flow run"))
    assert capsys.readouterr().err == "generate: never run\n"


def test_prefect_shows_all_lines_itself_if_all_are_wanted() -> None:
    before = len(LOGGER.handlers)
    console.show(Detail.VERBOSE)
    console.show_own_lines()
    assert len(LOGGER.handlers) == before


def test_a_users_mistake_is_logged_without_a_traceback_and_a_defect_with_one() -> None:
    console.without_tracebacks_for_users()
    console.without_tracebacks_for_users()  # adds nothing
    mistake, defect = record("x.py", "Encountered", UserError("no such file")), record("x.py", "Encountered", KeyError("x"))
    assert LOGGER.filter(mistake)
    assert LOGGER.filter(defect)
    assert (mistake.getMessage(), mistake.exc_info) == ("no such file", None)
    assert defect.exc_info is not None
