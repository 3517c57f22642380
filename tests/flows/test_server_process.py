"""What is left of an `up` that was killed is stopped, and no other process; how it stops is seen in test_servers.py."""

import subprocess
from pathlib import Path

from flows.server_process import stop_leftover
from metaopt_core.pipeline.home import Home


def test_a_process_id_that_is_another_ones_by_now_is_left_alone(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        home = Home(tmp_path)
        home.locks.mkdir()
        (home.locks / "server-mlflow.pid").write_text(str(other.pid))
        stop_leftover(home, "mlflow", seconds=0.5)
        assert other.poll() is None
        other.kill()
