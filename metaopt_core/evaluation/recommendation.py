"""What to use, in one sentence: it follows from the paired differences with every number of support examples.

A meta-learner is better than plain methods where it is better than the best of the baselines by more than chance, all numbers of
examples and all meta-learners considered (Holm). If none is, the sentence names the simplest of the baselines that are as good as
the best, by the rule of one standard error (Breiman, Friedman, Olshen, Stone 1984, section 3.4.3) and at nearly its gain.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from metaopt_core.evaluation.statistics import survivors
from metaopt_core.evaluation.verdict import Summary, difference, larger_is_better

MANY_HARMED = 0.1
"""A share of tasks that is worth a sentence."""


_NEGLIGIBLE = 0.02  # of a gain


class _Compared(NamedTuple):
    """A meta-learner minus a baseline: `by` is positive where it is better, and `sure` where that is more than chance."""

    method: str
    shots: int
    by: float
    pair: Mapping[str, Any]
    sure: bool


def recommend(summary: Summary) -> dict[str, Any] | None:
    """What to use, as JSON values; none where there is no meta-learner or no baseline with finite means.

    `use`: a method; `because`: `better`, `tie`, or `worse`, where the best meta-learner is worse than the best baseline by more
    than chance over all numbers of examples, and `harms`, where it also harms a share of the tasks. `against`: the other side's
    best method. `largest`: the largest difference of a meta-learner from that baseline in the meta-learner's favour, with `method`,
    `shots`, `mean` and `ci95`; `better_with` and `worse_with`: the numbers of examples with which it is surely so; `harmed`: the
    share of tasks that the best meta-learner harms.
    """
    if not summary.get("by_shots"):
        return None
    over, methods = summary["over_shots"], summary["methods"]
    baselines = _by_mean(summary, [name for name in methods if methods[name]["baseline"]])
    learners = _by_mean(summary, [name for name in methods if not methods[name]["baseline"]])
    if not baselines or not learners:
        return None
    best, learner = baselines[0], learners[0]
    compared = _compared(summary, learners, best)
    found: dict[str, Any] = {"harmed": over["methods"][learner].get("harmed")}
    if winners := [name for name in learners if any(one.sure and one.by > 0 and one.method == name for one in compared)]:
        return found | {"use": winners[0], "because": "better", "against": best} | _told(compared, winners[0])
    use = _simplest(summary, baselines)
    if use != best:
        others = _compared(summary, learners, use)
        use, compared = (best, compared) if any(one.sure and one.by > 0 for one in others) else (use, others)
    overall = _pairs([(learner, 0, _pair(summary, over, learner, best))], _sign(summary))
    worse = any(one.sure and one.by < 0 for one in overall)
    because = "tie" if not worse else "harms" if (found["harmed"] or 0) >= MANY_HARMED else "worse"
    told = _told(compared, learner if worse else None)
    return found | {"use": use, "because": because, "against": learner} | told


def _told(compared: list[_Compared], method: str | None) -> dict[str, Any]:
    """Of one meta-learner, or of all."""
    of = [one for one in compared if method in (None, one.method)]
    largest = max(of, key=lambda one: one.by)
    return {
        "largest": {"method": largest.method, "shots": largest.shots, "mean": largest.pair["mean"], "ci95": largest.pair["ci95"]},
        "better_with": sorted({one.shots for one in of if one.sure and one.by > 0}),
        "worse_with": sorted({one.shots for one in of if one.sure and one.by < 0}),
    }


def _sign(summary: Summary) -> int:
    return 1 if larger_is_better(summary) else -1


def _by_mean(summary: Summary, names: list[str]) -> list[str]:
    """Those with a finite mean over all numbers of examples, the best first."""
    of = summary["over_shots"]["methods"]
    known = [name for name in names if of[name][summary["primary"]]["mean"] is not None]
    return sorted(known, key=lambda name: -_sign(summary) * of[name][summary["primary"]]["mean"])


def _pair(summary: Summary, entry: Mapping[str, Any], of: str, against: str) -> Mapping[str, Any] | None:
    return difference({"differences": entry["differences"]}, of, against, summary["primary"])


def _compared(summary: Summary, learners: list[str], baseline: str) -> list[_Compared]:
    """Each meta-learner with each number of examples, where the difference is known."""
    return _pairs(
        [(name, entry["shots"], _pair(summary, entry, name, baseline)) for name in learners for entry in summary["by_shots"]],
        _sign(summary),
    )


def _pairs(found: list[tuple[str, int, Mapping[str, Any] | None]], sign: int) -> list[_Compared]:
    known = [(name, shots, pair) for name, shots, pair in found if pair and pair["mean"] is not None]
    sure = survivors([pair["p"] for _, _, pair in known])
    each = zip(known, sure, strict=True)
    return [_Compared(name, shots, sign * pair["mean"], pair, is_sure) for (name, shots, pair), is_sure in each]


def _simplest(summary: Summary, baselines: list[str]) -> str:
    """The simplest of the baselines whose mean is within one standard error of the best one's, task by task.

    Few tasks have large standard errors: it may not cost more than a small share of what the best gains over the reference, either.
    """
    best, methods, over = baselines[0], summary["methods"], summary["over_shots"]
    means = {name: over["methods"][name][summary["primary"]]["mean"] for name in baselines}
    reference = next((name for name in baselines if methods[name].get("reference")), None)
    most = math.inf if reference is None else _NEGLIGIBLE * abs(means[best] - means[reference])
    as_good = [best]
    for name in baselines[1:]:
        pair = _pair(summary, over, best, name)
        known = pair and pair["mean"] is not None and pair["ci95"] is not None
        if known and pair and abs(pair["mean"]) <= min(pair["ci95"] / 2, most):
            as_good.append(name)
    return min(as_good, key=lambda name: methods[name].get("simple", 100))
