"""Links lead to what answers for a home now; no port is assumed."""

import json
from dataclasses import asdict
from pathlib import Path

from metaopt_core.pipeline.home import Home
from metaopt_core.pipeline.served import Served, lock, note
from metaopt_core.tracking.connection import embedded_uri
from metaopt_core.tracking.links import links


def _record(uri: str) -> dict[str, str]:
    return {"tracking_uri": uri, "experiment_id": "3", "run_id": "abc"}


def test_a_run_on_a_server_is_shown_there(tmp_path: Path) -> None:
    found = links(Home(tmp_path), _record("https://mlflow.example:5001/"))
    assert found["url"] == "https://mlflow.example:5001/#/experiments/3/runs/abc?workflowType=machine_learning"
    assert found["report_url"] == (
        "https://mlflow.example:5001/#/experiments/3/runs/abc/artifacts/report.html?workflowType=machine_learning"
    )


def test_a_run_of_the_embedded_store_is_shown_where_it_is_served_and_nowhere_else(tmp_path: Path) -> None:
    home = Home(tmp_path)
    record = _record(embedded_uri(home))
    assert links(home, record) == {"url": None, "report_url": None}
    note(home).write_text(json.dumps(asdict(Served("http://127.0.0.1:1", "http://127.0.0.1:47", password=False))))
    with lock(home):
        url = links(home, record)["url"]
        assert url is not None
        assert url.startswith("http://127.0.0.1:47/#/experiments/3/runs/abc?")
        assert links(home, _record("sqlite:////another/mlflow.db"))["url"] is None
    assert links(home, record)["url"] is None
