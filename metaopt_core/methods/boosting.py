"""Gradient boosting by LightGBM on the rows of all tasks, kept in its text format."""

from collections.abc import Mapping
from typing import Any

import lightgbm
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from metaopt_core.methods.contract import Setting
from metaopt_core.methods.from_support import Pooled, as_bytes, pooled, text
from metaopt_core.methods.linear import Model
from metaopt_core.networks.network import Params

_ROUNDS, _PATIENCE = 600, 30
_LEAVES = (7, 31)
_FIXED: Mapping[str, Any] = {
    "learning_rate": 0.05,
    "min_data_in_leaf": 20,
    "feature_fraction": 0.8,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,  # the result depends on their number
    "verbosity": -1,
}


def pooled_boosting(setting: Setting) -> Params:
    """A model of all training rows for each output, with as many trees as suit the validation rows best."""
    rows, held_out = pooled(setting, "train"), pooled(setting, "validation")
    if rows is None or held_out is None:
        return {}
    return trees(setting, rows, held_out)


def trees(setting: Setting, rows: Pooled, held_out: Pooled) -> Params:
    """`model_0`, …: of each output of a regression, or one of all classes."""
    if setting.shape.targets == "classes":
        ways = setting.spec.train.ways or int(rows.y.max()) + 1
        kind: dict[str, Any] = {"objective": "multiclass", "num_class": ways} if ways > 2 else {"objective": "binary"}
        return {"model_0": as_bytes(_trained(setting, kind, rows, held_out, rows.y.numpy(), held_out.y.numpy()))}
    return {
        f"model_{output}": as_bytes(
            _trained(setting, {"objective": "l2"}, rows, held_out, rows.y[:, output].numpy(), held_out.y[:, output].numpy())
        )
        for output in range(rows.y.shape[1])
    }


def _trained(
    setting: Setting, kind: Mapping[str, Any], rows: Pooled, held_out: Pooled, y: npt.NDArray[Any], held_out_y: npt.NDArray[Any]
) -> str:
    found: list[tuple[float, str]] = []
    for leaves in _LEAVES:
        asked = {**_FIXED, **kind, "num_leaves": leaves, "seed": setting.spec.seed % 2**31}
        data = lightgbm.Dataset(rows.x.numpy(), y, weight=rows.weight.numpy(), params=asked)
        valid = lightgbm.Dataset(held_out.x.numpy(), held_out_y, weight=held_out.weight.numpy(), reference=data)
        stop = lightgbm.early_stopping(_PATIENCE, verbose=False)
        model = lightgbm.train(asked, data, _ROUNDS, valid_sets=[valid], callbacks=[stop])
        (value,) = [value for metrics in model.best_score.values() for value in metrics.values()]
        found.append((value, model.model_to_string(num_iteration=model.best_iteration)))
    return min(found)[1]


def trees_of(params: Mapping[str, Tensor]) -> Model:
    """The models, ready to predict."""
    names = sorted((name for name in params if name.startswith("model_")), key=lambda name: int(name[6:]))
    texts = [text(dict(params), name) for name in names]
    models = [lightgbm.Booster(model_str=content) for content in texts]

    def predict(x: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1]).numpy()
        found = [np.asarray(model.predict(flat, num_threads=1)) for model in models]
        if "objective=binary" in texts[0]:
            chance = np.clip(found[0], 1e-6, 1 - 1e-6)
            made = np.stack([np.log(1 - chance), np.log(chance)], 1)
        elif found[0].ndim == 2:
            made = np.log(np.clip(found[0], 1e-6, 1))
        else:
            made = np.stack(found, 1)
        return torch.from_numpy(made).reshape(*x.shape[:-1], -1)

    return predict
