"""The note of `metaopt up` counts while the process that wrote it holds its lock."""

import json
import subprocess
import sys
from pathlib import Path

from metaopt_core.pipeline.home import Home
from metaopt_core.pipeline.served import lock, note, served, served_address

_HOLD = """
import sys, time
from pathlib import Path
from metaopt_core.pipeline.home import Home
from metaopt_core.pipeline.served import lock
with lock(Home(Path(sys.argv[1]))):
    print("held", flush=True)
    time.sleep(300)
"""


def test_the_note_counts_while_its_writer_lives_however_that_ends(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert served(home) is None
    noted = {"prefect": "http://127.0.0.1:1", "mlflow": "http://127.0.0.1:2", "password": False}
    note(home).write_text(json.dumps(noted))
    assert served_address(home) is None
    with subprocess.Popen([sys.executable, "-c", _HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        found = served(home)
        assert found is not None
        assert found.api == "http://127.0.0.1:1/api"
        assert served_address(home) == "http://127.0.0.1:2"
        process.kill()
    assert served_address(home) is None


def test_a_damaged_note_is_none(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with lock(home):
        for text in ("", "[]", "{}", '{"prefect": "http://127.0.0.1:1"}', "\0"):
            note(home).write_text(text)
            assert served(home) is None, text
