"""The Prefect server of one run: for this run alone, and no hindrance to its end."""

import base64
import signal
import time
from pathlib import Path

import httpx
import pytest

from flows import environment
from flows.embedded_server import EmbeddedServer
from tests.flows.conftest import project_in
from tests.flows.running import children, eventually, lives


@pytest.mark.slow
def test_it_answers_the_run_that_started_it_and_no_page_and_nobody_else() -> None:
    server = EmbeddedServer(environment.current_home())
    try:
        server.wait()
        flows = f"{server.api.address}/flows/filter"
        assert server.api.login is not None
        login = {"Authorization": f"Basic {base64.b64encode(server.api.login.encode()).decode()}"}
        assert httpx.post(flows, json={}, headers=login, timeout=60).status_code == 200
        assert httpx.post(flows, json={}, timeout=60).status_code == 401
        for foreign in ({"Origin": "http://evil.example"}, {"Host": "evil.example"}):
            assert httpx.post(flows, json={}, headers=login | foreign, timeout=60).status_code == 403
    finally:
        server.stop()
    with pytest.raises(httpx.ConnectError):
        httpx.get(server.api.address)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_ends_while_it_starts_waits_for_nothing_and_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    log = tmp_path / "log"
    with project_in(tmp_path).started("run", "tiny", log=log) as run:

        def starting() -> list[int]:
            return [pid for pid, command in children(run.pid).items() if "server_process embedded" in command]

        (server,) = eventually(starting, "starting server", log, process=run)
        run.send_signal(number)
        interrupted = time.monotonic()
        run.wait(60)
        assert time.monotonic() - interrupted < 20  # it was up to 90
        if number == signal.SIGINT:
            assert run.returncode == 130
            assert "Traceback" not in log.read_text(), log.read_text()
    eventually(lambda: not lives(server), "end of the server", log)
