"""What is read from summary.json."""

import math

import pandas as pd

from metaopt_core.evaluation.verdict import worst_tasks
from tests.hand_made import SPEC, summary_of


def test_the_worst_tasks_come_first_and_those_that_are_no_number_before_them() -> None:
    columns = {"task": range(4), "loss_0": 1.0, "loss_1": [2.0, 5.0, math.nan, 1.0]}
    table = pd.DataFrame({"variant": "in-distribution", "method": "maml"} | columns)
    assert worst_tasks(summary_of(SPEC, table), table, 3) == [2, 1, 0]
