"""A model of a table takes rows as the data have them, and answers in the target's own unit."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from metaopt_core.distributions.batch import Episode
from metaopt_core.distributions.in_units import InUnits
from metaopt_core.distributions.table.drawing import Table
from metaopt_core.spec.distribution import TaskShape
from tests.metaopt_core.distributions.table.tables import frame, of_frame


class Noted:
    """Predicts 0 for each query, and keeps what it was given."""

    absolute = False

    def __init__(self) -> None:
        self.given: dict[str, Any] = {}

    def predict(self, model_input: Any, params: Mapping[str, Any]) -> npt.NDArray[np.float32]:
        self.given = model_input
        return np.zeros((*model_input["query_x"].shape[:-1], 1), dtype=np.float32)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Table, TaskShape, pd.DataFrame]:
    rows = frame(40, 20)
    rows.loc[::7, "x"] = np.nan
    return *of_frame(rows, tmp_path_factory.mktemp("units")), rows


def test_rows_become_what_the_model_was_trained_on(made: tuple[Table, TaskShape, pd.DataFrame]) -> None:
    table, shape, rows = made
    task = rows[rows.task == table.splits["test"].names[0]]
    records = task.drop(columns="y").to_dict("records")
    noted = Noted()
    found = InUnits(noted, shape.preparation).predict(
        {"support_x": records, "support_y": task.y.tolist(), "query_x": records[:3]}, {}
    )
    whole = table.held_out("test", Episode(None, 15, 5), 0, 1)
    assert whole.origin is not None
    x = np.concatenate([whole.support_x[0].numpy(), whole.query_x[0].numpy()])
    assert sorted(noted.given["support_x"].tolist()) == sorted(x.tolist())
    mean, scale = shape.target_means[0], shape.target_scales[0]
    y = (task.y.to_numpy() - mean) / scale
    origin = table.preparation.origin(y[:, None])[0, 0]
    assert np.allclose(noted.given["support_y"][:, 0], y - origin, atol=1e-5)
    assert np.allclose(found, mean + scale * origin)  # which is what 0 stands for
    assert found.shape == (3, 1)


def test_a_model_that_takes_targets_as_they_are_gets_them_so(made: tuple[Table, TaskShape, pd.DataFrame]) -> None:
    table, shape, rows = made
    task = rows[rows.task == table.splits["test"].names[0]]
    records, noted = task.drop(columns="y").to_dict("records"), Noted()
    noted.absolute = True
    given = {"support_x": records, "support_y": task.y.tolist(), "query_x": records[:3]}
    found = InUnits(noted, shape.preparation).predict(given, {})
    mean, scale = shape.target_means[0], shape.target_scales[0]
    assert np.allclose(noted.given["support_y"][:, 0], (task.y.to_numpy() - mean) / scale, atol=1e-5)
    assert np.allclose(found, mean)


def test_several_tasks_are_predicted_together(made: tuple[Table, TaskShape, pd.DataFrame]) -> None:
    table, shape, rows = made
    tasks = [rows[rows.task == name] for name in table.splits["test"].names[:2]]
    given = {
        "support_x": [task.to_dict("records") for task in tasks],
        "query_x": [task.head(2).to_dict("records") for task in tasks],
    }
    model = InUnits(Noted(), shape.preparation)
    found = model.predict(given | {"support_y": [task.y.tolist() for task in tasks]}, {})
    alone = [model.predict({key: value[number] for key, value in given.items()} | {"support_y": task.y.tolist()}, {})
             for number, task in enumerate(tasks)]  # fmt: skip
    assert np.allclose(found, np.stack(alone), atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"support_x": [[1.0, 2.0]]}, "support_x is no list of rows: expected mappings from columns to values, .* with x, vendor"),
        ({"query_x": [{"x": 1.0}]}, "query_x: row 1 lacks vendor: expected every column, None for no value"),
        ({"query_x": [{"x": "?", "vendor": "acme"}]}, "query_x: x holds a value that is no number"),
        ({"support_y": ["high"]}, "support_y holds no numbers"),
        ({"support_y": [1.0, 2.0]}, r"support_y has shape \(2,\): expected \(1,\), a target for each row of support_x"),
    ],
)
def test_what_cannot_be_read_is_named(changes: Any, says: str, made: tuple[Table, TaskShape, pd.DataFrame]) -> None:
    row = {"x": None, "vendor": "acme"}
    with pytest.raises(ValueError, match=says):
        InUnits(Noted(), made[1].preparation).predict({"support_x": [row], "support_y": [1.0], "query_x": [row]} | changes, {})


def test_shared_labels_are_taken_by_their_names(tmp_path: Path) -> None:
    rows = frame(40, 20)
    rows["y"] = (rows.y > 100).astype(int)
    _, shape = of_frame(rows, tmp_path, problem="classification", features={"categorical": []})
    noted = Noted()
    model = InUnits(noted, shape.preparation)
    given = {"support_x": [{"x": 1.0}, {"x": 2.0}], "query_x": [{"x": 1.0}]}
    for labels in ([1, 0], ["1", "0"], [1.0, 0.0]):
        model.predict(given | {"support_y": labels}, {})
        assert noted.given["support_y"].tolist() == [1, 0]
    with pytest.raises(ValueError, match="support_y has the label 'yes': expected 0, 1"):
        model.predict(given | {"support_y": ["yes", "no"]}, {})
