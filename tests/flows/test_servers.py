"""`metaopt up`: real servers on the ports that they are told, closed to other sites' pages, and stopped whatever ends them."""

import http.server
import json
import os
import queue
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from flows.servers import prefect_api
from flows.servers import up as start_servers
from metaopt_core.errors import UserError
from metaopt_core.pipeline.home import Home
from tests.flows.conftest import Project, project_in
from tests.flows.running import Up, children, eventually, free_ports, lives, up

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PREFECT_READ = ("/api/flows/filter", {"limit": 5})
PREFECT_WRITE = ("/api/flows/", {"name": "made-by-another-site"})
MLFLOW_READ = ("/ajax-api/2.0/mlflow/experiments/search", {"max_results": 5})
MLFLOW_WRITE = ("/ajax-api/2.0/mlflow/experiments/create", {"name": "made-by-another-site"})


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return project_in(tmp_path_factory.mktemp("up"))


@pytest.fixture(scope="module")
def servers(project: Project) -> Iterator[Up]:
    with up(project) as running:
        yield running


def _names(servers: Up) -> set[str]:
    """What there is in both servers."""
    flows = httpx.post(servers.prefect + PREFECT_READ[0], json={}, timeout=60).raise_for_status().json()
    experiments = httpx.post(servers.mlflow + MLFLOW_READ[0], json=MLFLOW_READ[1], timeout=60).raise_for_status().json()
    return {one["name"] for one in flows} | {one["name"] for one in experiments["experiments"]}


def test_the_page_of_prefect_uses_the_server_that_shows_it_under_whatever_name(servers: Up) -> None:
    printed = servers.log.read_text()
    assert f"Prefect  {servers.prefect}\n" in printed
    assert f"MLflow   {servers.mlflow}\n" in printed
    for address in (servers.prefect, servers.prefect.replace("127.0.0.1", "localhost")):
        assert httpx.get(f"{address}/ui-settings", timeout=60).json()["api_url"] == f"{address}/api"


def test_a_foreign_origin_or_host_is_refused_reading_and_writing(servers: Up) -> None:
    for address, requests in ((servers.prefect, (PREFECT_READ, PREFECT_WRITE)), (servers.mlflow, (MLFLOW_READ, MLFLOW_WRITE))):
        host = address.removeprefix("http://")
        for path, body in requests:
            for foreign in ({"Origin": "http://evil.example"}, {"Origin": "null"}, {"Host": f"evil.example:{host.split(':')[1]}"}):
                refused = httpx.post(address + path, json=body, headers=foreign, timeout=60)
                assert refused.status_code == 403, (path, foreign)
                assert "access-control-allow-origin" not in refused.headers
        asked = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
        assert httpx.options(address + path, headers=asked, timeout=60).status_code == 403
        assert httpx.get(address, headers={"Host": "evil.example"}, timeout=60).status_code == 403
        own = httpx.post(address + requests[0][0], json=requests[0][1], headers={"Origin": address}, timeout=60)
        assert own.status_code == 200
    assert "made-by-another-site" not in _names(servers)


def test_a_foreign_origin_gets_no_web_socket(servers: Up) -> None:
    events = servers.api.replace("http", "ws") + "/events/out"
    with connect(events, origin=servers.prefect):  # type: ignore[arg-type]  # it is a NewType of str
        pass
    with pytest.raises(InvalidStatus, match="403"):
        connect(events, origin="http://evil.example")  # type: ignore[arg-type]


def test_what_starts_programs_for_mlflows_clients_is_closed(servers: Up) -> None:
    for path in ("mlflow/assistant/config", "jobs/"):
        refused = httpx.get(f"{servers.mlflow}/ajax-api/3.0/{path}", timeout=60)
        assert refused.status_code == 403


def test_a_second_up_says_where_the_first_one_is(project: Project, servers: Up) -> None:
    again = project.metaopt("up")
    assert again.returncode == 2
    assert f"up already: Prefect {servers.prefect}, MLflow {servers.mlflow}" in again.stderr


# --- in a browser -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("needs Chromium or Chrome")
    return found


def _command(chromium: str, profile: Path, *arguments: str) -> list[str]:
    """evil.test is another site's name, which resolves to this machine, as its owner can let it."""
    options = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", f"--user-data-dir={profile}")
    return [chromium, *options, "--host-resolver-rules=MAP evil.test 127.0.0.1", *arguments]


def _shown(chromium: str, profile: Path, address: str) -> str:
    """What a page comes to in a browser."""
    command = _command(chromium, profile, "--virtual-time-budget=30000", "--dump-dom", address)
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=True).stdout


ATTACK = """
<!doctype html><script>
const report = {};
const attempt = async (name, action) => {
  try { report[name] = await action() } catch (error) { report[name] = "failed: " + error.name }
};
const post = (address, body, options) => fetch(address, {method: "POST", body: JSON.stringify(body), ...options});
const json = {headers: {"content-type": "application/json"}};
(async () => {
  for (const [address, body] of TARGETS) {
    await attempt("read or write, as JSON: " + address, async () => (await post(address, body, json)).status);
    await attempt("read or write, simple: " + address, async () => (await post(address, body)).status);
    await post(address, body, {mode: "no-cors"}).catch(() => null);
    await fetch(address, {method: "POST", mode: "no-cors", body: new Blob([JSON.stringify(body)])}).catch(() => null);
  }
  await attempt("web socket", () => new Promise((resolve, reject) => {
    const socket = new WebSocket(SOCKET);
    socket.onopen = () => resolve("open");
    socket.onerror = () => reject(new Error());
  }));
  await fetch("/report", {method: "POST", body: JSON.stringify(report)});
})();
</script>
"""


@contextmanager
def _another_site(page: str) -> Iterator[tuple[str, queue.Queue[Any]]]:
    """A site with one page, and what that page reports to it."""
    reports: queue.Queue[Any] = queue.Queue()

    class Site(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(page.encode())

        def do_POST(self) -> None:
            reports.put(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://evil.test:{server.server_address[1]}/", reports
        server.shutdown()


def test_no_page_of_another_site_reads_or_writes_anything(servers: Up, chromium: str, tmp_path: Path) -> None:
    targets = [
        *((servers.prefect + path, body) for path, body in (PREFECT_READ, PREFECT_WRITE)),
        *((servers.mlflow + path, body) for path, body in (MLFLOW_READ, MLFLOW_WRITE)),
    ]
    socket = json.dumps(servers.api.replace("http", "ws") + "/events/out")
    page = ATTACK.replace("TARGETS", json.dumps(targets)).replace("SOCKET", socket)
    with _another_site(page) as (address, reports):
        browser = subprocess.Popen(_command(chromium, tmp_path / "profile", address), stderr=subprocess.DEVNULL)
        report = reports.get(timeout=120)
        browser.terminate()
        browser.wait(30)
    assert len(report) == 2 * len(targets) + 1
    assert set(report.values()) <= {"failed: TypeError", "failed: Error"}, report
    assert "made-by-another-site" not in _names(servers)


def test_a_foreign_name_for_this_machine_shows_nothing_in_a_browser(servers: Up, chromium: str, tmp_path: Path) -> None:
    for address in (servers.prefect, servers.mlflow):
        shown = _shown(chromium, tmp_path / "profile", f"{address.replace('127.0.0.1', 'evil.test')}/")
        assert "only requests for its own address" in shown


def test_prefects_page_shows_the_flows_of_this_home(servers: Up, chromium: str, tmp_path: Path) -> None:
    httpx.post(f"{servers.api}/flows/", json={"name": "a-flow-of-this-home"}, timeout=60).raise_for_status()
    for address in (servers.prefect, servers.prefect.replace("127.0.0.1", "localhost")):
        assert "a-flow-of-this-home" in _shown(chromium, tmp_path / "profile", f"{address}/flows")


def test_mlflows_page_opens_an_experiment_on_its_training_runs(servers: Up, chromium: str, tmp_path: Path) -> None:
    shown = _shown(chromium, tmp_path / "profile", f"{servers.mlflow}/#/experiments/0")
    assert "metrics.rmse" in shown  # the search field of runs says so
    assert "Detect Issues" not in shown  # in traces
    assert "Welcome to MLflow Assistant" not in shown


# --- with a password, and after a kill ----------------------------------------------------------------------------------


def test_after_a_kill_up_stops_what_hangs_and_a_password_is_used_without_being_typed(tmp_path: Path) -> None:
    project, ports = project_in(tmp_path), free_ports()
    with up(project, ports=ports) as first:
        left = children(first.process.pid)
        assert len(left) == 2
        (hanging,) = [pid for pid, command in left.items() if " mlflow " in command]
        os.kill(hanging, signal.SIGSTOP)
        first.process.kill()
        first.process.wait()
    eventually(lambda: sum(map(lives, left)) == 1, "end of the server that does not hang")

    with up(project, "--password", ports=ports) as second:
        assert not lives(hanging)
        file = project.home / "login"
        assert file.stat().st_mode & 0o777 == 0o600
        login = file.read_text().strip()
        assert login.partition(":")[2] not in second.log.read_text()
        for address, (path, body) in ((second.prefect, PREFECT_READ), (second.mlflow, MLFLOW_READ)):
            assert httpx.post(address + path, json=body, timeout=60).status_code == 401
            assert httpx.post(address + path, json=body, timeout=60, auth=("metaopt", "wrong")).status_code == 401
            with_login = httpx.post(address + path, json=body, timeout=60, auth=tuple(login.split(":")))  # type: ignore[arg-type]
            assert with_login.status_code == 200
        processes = subprocess.run(["ps", "-ww", "-eo", "args"], capture_output=True, text=True, check=True).stdout
        assert login.partition(":")[2] not in processes

        ran = project.metaopt("run", "tiny", "--only", "generate")
        assert ran.returncode == 0, ran.stderr
        runs = httpx.post(f"{second.api}/flow_runs/filter", json={}, timeout=60, auth=tuple(login.split(":"))).json()  # type: ignore[arg-type]
        assert {run["state_type"] for run in runs} == {"COMPLETED"}
        second.process.send_signal(signal.SIGTERM)
        assert second.process.wait(60) == 0, second.log.read_text()
    assert not (project.home / "servers.json").exists()
    for port in ports:
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"http://127.0.0.1:{port}")


def test_for_other_machines_a_password_is_required_and_that_is_said(tmp_path: Path) -> None:
    with up(project_in(tmp_path), "--host", "0.0.0.0") as servers:
        printed = servers.log.read_text()
        assert "Other machines can reach both" in printed
        assert str(tmp_path / ".metaopt" / "login") in printed
        for address, (path, body) in ((servers.prefect, PREFECT_READ), (servers.mlflow, MLFLOW_READ)):
            assert httpx.post(address + path, json=body, timeout=60).status_code == 401


def test_when_a_server_dies_up_says_which_and_shows_its_log(tmp_path: Path) -> None:
    project = project_in(tmp_path)
    (project.home / "mlflow").mkdir(parents=True)
    (project.home / "mlflow" / "mlflow.db").write_text("not a database")
    prefect_port, mlflow_port = map(str, free_ports())
    done = project.metaopt("up", "--prefect-port", prefect_port, "--mlflow-port", mlflow_port)
    assert done.returncode == 2
    assert "MLflow's server ended" in done.stderr
    assert "file is not a database" in done.stderr


def test_a_port_that_is_taken_is_named_with_its_option(tmp_path: Path) -> None:
    free, taken = free_ports()
    with http.server.ThreadingHTTPServer(("127.0.0.1", taken), http.server.BaseHTTPRequestHandler):
        done = project_in(tmp_path).metaopt("up", "--prefect-port", str(free), "--mlflow-port", str(taken))
    assert done.returncode == 2
    assert f"--mlflow-port {taken}: cannot listen" in done.stderr


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ("", "--host: expected a name or an address of this machine"),
        ("nosuch.invalid", "--host nosuch.invalid: not a name or an address of this machine"),
        ("a" * 70, f"--host {'a' * 70}: not a name or an address of this machine"),
        ("192.0.2.1", "--host 192.0.2.1: not a name or an address of this machine"),
    ],
)
def test_a_host_that_is_not_this_machine_is_named_with_its_option(tmp_path: Path, host: str, message: str) -> None:
    with pytest.raises(UserError, match=f"^{message}"):
        start_servers(Home(tmp_path), host, *free_ports(), password=False)


def test_prefects_address_is_refused_with_prefects_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://me:hunter2@127.0.0.1:4200/api")
    with pytest.raises(UserError, match=r"PREFECT_API_URL: an address holds no .* environment variable PREFECT_API_AUTH_STRING$"):
        prefect_api(Home(tmp_path))
