"""The worked examples of CONTRIBUTING.md are put into a copy of the sources, and a pipeline runs with all of them."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()


def examples() -> dict[str, list[str]]:
    """File → the pieces of code that the page has for it."""
    found = defaultdict(list)
    for path, code in re.findall(r"```python\n# (\S+\.py)\n(.*?)```", TEXT, flags=re.DOTALL):
        found[path].append(code)
    return found


def test_each_example_is_short() -> None:
    for path, pieces in examples().items():
        assert sum(len(code.splitlines()) for code in pieces) < 60, path


@pytest.mark.slow
def test_the_examples_run_together(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for package in ("flows", "tasks", "metaopt_core"):
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    for path, pieces in examples().items():
        if not (copy / path).exists():
            (copy / path).write_text("\n\n".join(pieces))
    [entry] = examples()["metaopt_core/pipeline/stages.py"]
    table = copy / "metaopt_core/pipeline/stages.py"
    table.write_text(table.read_text().replace("    )\n}\n", f"{entry}    )\n}}\n", 1))
    [pipelines] = re.findall(r"```yaml\n(.*?)```", TEXT, flags=re.DOTALL)
    (copy / "pipelines.yaml").write_text(pipelines)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("METAOPT_", "PREFECT_", "MLFLOW_"))}
    done = subprocess.run(
        [sys.executable, "-m", "flows", "run", "decays", "--json"],
        cwd=copy,
        env=environment | {"PYTHONPATH": str(copy)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout)
    assert "nearest" in result["results"]["methods"]
    assert "faster" in result["results"]["shifted"]
    [export] = [stage for stage in result["stages"] if stage["stage"] == "export"]
    table_of_tasks = pd.read_csv(Path(export["folder"]) / "tasks.csv")
    assert {"nearest", "maml"} <= set(table_of_tasks["method"])
    assert table_of_tasks["largest_error_0"].notna().any()
