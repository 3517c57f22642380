"""A model that takes rows as the data have them, and answers in the target's own unit.

It stands around one that takes features and targets in the units of the meta-train tasks, with which it was trained.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from metaopt_core.distributions.preparing import Numeric, Preparation

Array = npt.NDArray[Any]


class Model(Protocol):
    """What predicts from three arrays. absolute: whether it takes targets with nothing subtracted, and predicts such."""

    @property
    def absolute(self) -> bool: ...

    def predict(self, model_input: Any, params: Mapping[str, Any]) -> npt.NDArray[np.float32]: ...


class InUnits:
    """`support_x` and `query_x` are rows, mappings from columns to values: of one task [examples], or of several [tasks, examples].

    `support_y` are targets or labels, as the data have them. Predictions are in the target's unit, or the probabilities of the
    labels in their order.
    """

    def __init__(self, model: Model, preparation: str):
        self.model, self.preparation = model, Preparation.from_json(json.loads(preparation))

    def predict(self, model_input: Any, params: Mapping[str, Any]) -> npt.NDArray[np.float32]:
        """Raises ValueError for rows that lack a column, and values that are none of its kind."""
        if not isinstance(model_input, Mapping) or not {"support_x", "support_y", "query_x"} <= model_input.keys():
            return self.model.predict(model_input, params)  # which says what is wrong
        x = {name: self._features(name, model_input[name]) for name in ("support_x", "query_x")}
        if not self.preparation.means:
            return self.model.predict({**x, "support_y": self._labels(model_input["support_y"])}, params)
        means, scales = np.array(self.preparation.means), np.array(self.preparation.scales)
        y = (self._targets(model_input["support_y"], x["support_x"].shape[:-1]) - means) / scales
        origin = 0.0 if self.model.absolute else self.preparation.origin(y)
        predictions = self.model.predict({**x, "support_y": (y - origin).astype(np.float32)}, params)
        return np.asarray(means + scales * (origin + predictions), dtype=np.float32)

    def _features(self, name: str, rows: Any) -> Array:
        """Rows [examples] or [tasks, examples] → features [..., features]."""
        array = np.asarray(rows, dtype=object)
        flat: list[Any] = array.ravel().tolist()
        wanted = [column.column for column in self.preparation.columns]
        if array.ndim not in (1, 2) or not all(isinstance(row, Mapping) for row in flat):
            raise ValueError(
                f"{name} is no list of rows: expected mappings from columns to values, as DataFrame.to_dict('records') gives them, "
                f"with {', '.join(wanted)}"
            )
        for number, row in enumerate(flat):
            if lacking := [column for column in wanted if column not in row]:
                raise ValueError(f"{name}: row {number + 1} lacks {', '.join(lacking)}: expected every column, None for no value")
        columns = {column.column: _column(name, column.column, [row[column.column] for row in flat], isinstance(column, Numeric))
                   for column in self.preparation.columns}  # fmt: skip
        return self.preparation.x(columns).reshape(*array.shape, -1)

    def _targets(self, given: Any, shape: Sequence[int]) -> npt.NDArray[np.float64]:
        """Targets [..., outputs]; of a single one the last dimension may be left out."""
        try:
            y = np.array(np.asarray(given).tolist(), dtype=np.float64)
        except (TypeError, ValueError):
            raise ValueError("support_y holds no numbers: expected the targets of the support rows") from None
        if y.shape == tuple(shape) and len(self.preparation.means) == 1:
            y = y[..., None]
        if y.shape != (*shape, len(self.preparation.means)):
            raise ValueError(f"support_y has shape {y.shape}: expected {tuple(shape)}, a target for each row of support_x")
        return y

    def _labels(self, given: Any) -> Array:
        """Labels by their numbers, if they mean the same in every task; else as they are."""
        array = np.asarray(given, dtype=object)
        if not self.preparation.classes:
            return np.asarray(given)
        number = {label: place for place, label in enumerate(self.preparation.classes)}
        if strange := [label for label in map(_text, array.ravel().tolist()) if label not in number]:
            raise ValueError(f"support_y has the label {strange[0]!r}: expected {', '.join(self.preparation.classes)}")
        return np.array([number[_text(label)] for label in array.ravel().tolist()]).reshape(array.shape)


def _column(name: str, column: str, values: Sequence[Any], numeric: bool) -> pa.Array:
    try:
        if numeric:
            return pa.array([None if value is None else float(value) for value in values], pa.float64())
        return pa.array([None if value is None or value != value else _text(value) for value in values], pa.string())
    except (TypeError, ValueError):
        raise ValueError(f"{name}: {column} holds a value that is no number: expected numbers, or None") from None


def _text(value: Any) -> str:
    """A value as a table's text: whole numbers without a decimal point."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
