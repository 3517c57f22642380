"""Addresses at which a browser shows a run: on its tracking server, or on the server of `metaopt up` for the home.

They are looked up each time and never stored, since the address that serves an embedded store changes.
"""

from collections.abc import Mapping
from typing import Any

from metaopt_core.pipeline.home import Home
from metaopt_core.pipeline.served import served_address
from metaopt_core.tracking.connection import embedded_uri

_TRAINING = "workflowType=machine_learning"  # without it MLflow's pages show traces, unless a browser remembers otherwise


def links(home: Home, record: Mapping[str, Any]) -> dict[str, str | None]:
    """The addresses `url`, of the run, and `report_url`; none if no server shows them now.

    record: what the log stage recorded about the run (`publish`).
    """
    address = _address(home, record["tracking_uri"])
    if address is None:
        return {"url": None, "report_url": None}
    run = f"{address}/#/experiments/{record['experiment_id']}/runs/{record['run_id']}"
    return {"url": f"{run}?{_TRAINING}", "report_url": f"{run}/artifacts/report.html?{_TRAINING}"}


def _address(home: Home, uri: str) -> str | None:
    if uri.startswith(("http://", "https://")):
        return uri.rstrip("/")
    return served_address(home) if uri == embedded_uri(home) else None
