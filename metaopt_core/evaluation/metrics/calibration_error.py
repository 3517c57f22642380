"""The expected calibration error (Guo, Pleiss, Sun, Weinberger 2017, equation 3), over the queries of all tasks together."""

from typing import TYPE_CHECKING, Any

from metaopt_core.spec.metric import metric

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

BINS = 15
_ABOUT = (
    f"how far the probability of an answer is from the share of answers that are right (expected calibration error, {BINS} bins)"
)


@metric(title="calibration error", targets="classes", form="percent", rank=90, pooled=True, about=_ABOUT)
def calibration_error(outputs: "Tensor", targets: "Tensor", weight: "Tensor | None" = None) -> "Tensor":
    """outputs [tasks, queries, ways], logits; targets [tasks, queries], labels; weight [tasks, queries]; an error a task
    [tasks]."""
    confidence, answer = outputs.softmax(-1).max(-1)
    right = answer == targets
    errors = [
        sum(part["share"] * abs(part["confidence"] - part["accuracy"]) for part in bins(*one))
        for one in zip(
            confidence.cpu().numpy(),
            right.cpu().numpy(),
            [None] * len(outputs) if weight is None else weight.cpu().numpy(),
            strict=True,
        )
    ]
    return outputs.new_tensor(errors, dtype=outputs.double().dtype)


def bins(
    confidence: "npt.NDArray[Any]", right: "npt.NDArray[Any]", weight: "npt.NDArray[np.float64] | None" = None
) -> list[dict[str, float]]:
    """Mean confidence, share of right answers and share of the queries in bins of equal width; one that holds none is left out.

    confidence, right, weight: [queries].
    """
    import numpy as np

    if weight is not None:
        kept = weight > 0
        confidence, right, weight = confidence[kept], right[kept], weight[kept]
    known = np.nan_to_num(confidence)
    place = np.minimum((known * BINS).astype(int), BINS - 1)
    each = np.ones(len(known)) if weight is None else weight
    return [
        {
            "confidence": float(np.average(known[place == index], weights=None if weight is None else each[place == index])),
            "accuracy": float(np.average(right[place == index], weights=None if weight is None else each[place == index])),
            "share": float(each[place == index].sum() / each.sum()),
        }
        for index in np.unique(place)
    ]
