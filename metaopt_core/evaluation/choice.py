"""Which method the logged model adapts by, chosen on the meta-validation tasks."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from metaopt_core.evaluation.protocol import Prepared, evaluate
from metaopt_core.evaluation.statistics import one_a_task
from metaopt_core.methods.contract import Setting


def choose(setting: Setting, compared: Sequence[Prepared]) -> dict[str, Any] | None:
    """The method with the best mean over the meta-validation tasks, over all numbers of support examples that are evaluated, if the
    spec asks for the best (`evaluate.model`); none if it doesn't.

    `method`; `metric`: the one that methods are compared by; `means`: of each method that can be logged, null if not finite.
    """
    spec = setting.spec
    if spec.evaluate.model != "best":
        return None
    candidates = [one for one in compared if one.method.can_be_logged]
    judge = spec.metrics[0]
    table, column = evaluate(setting, candidates, "validation").tasks, f"{judge.name}_{spec.horizon}"
    numbers = table["shots"].unique() if "shots" in table else [None]
    each = [one_a_task(table, shots) for shots in numbers]
    means = {
        one.key: float(np.mean([found.loc[found["method"] == one.key, column].to_numpy().mean() for found in each]))
        for one in candidates
    }
    sign = 1 if judge.larger_is_better else -1
    finite = {name: value for name, value in means.items() if np.isfinite(value)}
    method = max(finite, key=lambda name: sign * finite[name]) if finite else spec.model_method
    return {"method": method, "metric": judge.name, "means": {name: finite.get(name) for name in means}}
