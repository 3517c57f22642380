"""Intervals for tasks that share groups, such as classes: tasks of the same hard classes are hard together, so they are fewer
independent observations than they seem.

A cluster bootstrap. A task's number is taken as the mean of its groups' effects plus a part of its own, with a variance for each of
the two from the products of tasks that share groups (a multiple-membership model: Browne, Goldstein and Rasbash, Multiple
membership multiple classification models, Statistical Modelling 1, 2001). Resampled are groups, each with its effect on all of its
tasks at once, and the tasks' own parts, both scaled to their variances first (Carpenter, Goldstein and Rasbash, A novel bootstrap
procedure for assessing the relationship between class size and achievement, Applied Statistics 52, 2003). The resampled numbers are
means, so the standard error that infinitely many resamples have is known in closed form (the ideal bootstrap: Efron and Tibshirani,
An Introduction to the Bootstrap, section 5.2) and nothing has to be drawn.

To resample tasks as often as their groups were drawn would count a task's own part once for each of its groups: for 20 groups
intervals would be four times too wide. What can't be known from the tasks is not said either: where each of them has nearly all
groups, how they would do on others.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

_NOTHING = 1e-6  # overlap of tasks below which nothing can be estimated about groups

Array = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SharedGroups:
    """The groups of tasks.

    places: the groups of each task, 0 … count − 1 [tasks, groups of a task]. count: how many there are. concentration: the sum of
    squares of the groups' shares of all tasks. overlap: the sum, over pairs of different tasks, of the squared share that they have
    in common.
    """

    places: Integers
    count: int
    concentration: float
    overlap: float

    @classmethod
    def of(cls, groups: Integers) -> "SharedGroups | None":
        """groups: [tasks, groups of a task], by any numbers. None if no two tasks share one: then they are independent."""
        names, flat = np.unique(groups, return_inverse=True)
        if len(names) == groups.size:
            return None
        (tasks, each), places = groups.shape, flat.reshape(groups.shape)
        rows = np.repeat(np.arange(tasks), each)
        members = sparse.csr_array((np.full(groups.size, 1 / each), (rows, places.ravel())), shape=(tasks, len(names)))
        common = members @ members.T
        overlap = np.square(common.data).sum() - np.square(common.diagonal()).sum()
        shares = np.asarray(members.sum(0)).ravel() / tasks
        return cls(places, len(names), float(np.square(shares).sum()), float(overlap))

    def standard_error(self, values: Array) -> float:
        """The standard error of the mean of the tasks' numbers; NaN if one of them is not finite. values: [tasks]."""
        if not np.isfinite(values).all():
            return np.nan
        tasks, each = self.places.shape
        centered = values - values.mean()
        sums = np.bincount(self.places.ravel(), np.repeat(centered, each) / each, self.count)
        variance = np.square(centered).mean()
        products = np.square(sums).sum() - tasks * variance / each  # of pairs of tasks, each by the share in common
        # The variances of effects and of tasks' own parts under which both have their expected values. As the numbers are centered,
        # each product is expected to be smaller by the variance of the mean, which is `concentration` effects + own / tasks.
        pairs = (tasks**2 * self.concentration - tasks / each) / (tasks - 1)
        known = self.overlap - pairs * (tasks * self.concentration - 1 / each)
        of_groups = max(0.0, (products + pairs * variance) / known) if known > _NOTHING * self.overlap else 0.0
        own = max(0.0, (variance - of_groups * (1 / each - self.concentration)) * tasks / (tasks - 1))
        return float(np.sqrt(of_groups * self.concentration + own / tasks))
