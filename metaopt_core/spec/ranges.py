"""Values for dotted keys of a spec: inserted for a trial of a sweep, and checked beforehand by the rules of the spec itself."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from metaopt_core.spec.base import DEEPEST
from metaopt_core.spec.document import Entry, Node, dotted
from metaopt_core.spec.explain import Path, Refusal, suggestion
from metaopt_core.spec.pipeline import PipelineSpec
from metaopt_core.spec.sweep import RangeSpec, SweepSpec
from metaopt_core.spec.train import without_what_it_brings

STAGES = ("generate", "train", "evaluate")  # only their values can change the objective
_MOST_CHECKED = 100  # whole numbers of a range that are checked one by one


def with_values(spec: PipelineSpec, values: Mapping[str, Any], **changes: Any) -> PipelineSpec:
    """The spec with other values at dotted keys, without its sweep and schedule, run once. Raises pydantic's ValidationError.

    changes: values of the pipeline itself, such as its name.
    """
    body = spec.model_dump(exclude_unset=True, exclude={"sweep", "schedule", "seeds", "splits"})
    if isinstance(algorithm := values.get("train.algorithm"), str) and algorithm != spec.train.algorithm:
        body["train"] = without_what_it_brings(algorithm, body["train"])
    for key, value in values.items():
        _put(body, key.split("."), value)
    return PipelineSpec.model_validate(body | changes)


def value_at(spec: PipelineSpec, key: str) -> Any:
    """The value at a dotted key, including defaults, as JSON; none if there is no such key."""
    value: Any = spec.model_dump(mode="json")
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _put(tree: dict[str, Any], path: list[str], value: Any) -> None:
    *blocks, last = path
    for block in blocks:
        tree[block] = dict(tree[block]) if isinstance(tree.get(block), dict) else {}
        tree = tree[block]
    tree[last] = value


Candidate = tuple[Path, str, Node]
"""A value that a trial may be given: its path below `sweep`, the dotted key that gets it, and the value."""


def refusals(candidates: Iterable[Candidate], block: Node, check: Callable[[Node], list[Refusal]]) -> Iterator[Refusal]:
    """Every value of a sweep that its key would refuse.

    block: the pipeline's block, valid except for the sweep. check: returns what is wrong with such a block.
    """
    base = Node(block.place, {key: entry for key, entry in block.entries.items() if key != "sweep"})
    found: dict[Path, Refusal] = {}
    refused: set[str] = set()
    for path, key, value in candidates:
        if path == ("parameters", key) and key in refused:
            continue  # one mistake for each range is enough
        parts = key.split(".")
        no_key = parts[0] not in STAGES or len(parts) > DEEPEST
        for refusal in [_not_a_stage(key)] if no_key else check(_placed(base, parts, value)):
            where: Path = ("sweep", *path)
            if refusal.unknown:
                where = where[: where.index(key) + 1]
            elsewhere = f"{dotted(refusal.path)}: " if refusal.path != tuple(parts) and not refusal.unknown else ""
            found.setdefault(where, Refusal(where, f"{elsewhere}{refusal.message}", refusal.unknown, refusal.unknown))
            refused.add(key)
    yield from found.values()


def candidates(sweep: SweepSpec, block: Node) -> Iterator[Candidate]:
    """Every value that a trial may get; for a range its bounds, and the numbers between them if there are few."""
    node = block.entries["sweep"].node
    for key, parameter in sweep.parameters.items():
        given = node.entries["parameters"].node.entries[key].node.entries
        if isinstance(parameter, RangeSpec):
            low, high = given["low"].node, given["high"].node
            yield ("parameters", key, "low"), key, low
            yield ("parameters", key, "high"), key, high
            if isinstance(low.value, int) and isinstance(high.value, int) and high.value - low.value <= _MOST_CHECKED:
                for value in range(low.value + 1, high.value):
                    yield ("parameters", key), key, Node(low.place, value, str(value))
        else:
            for index, choice in enumerate(given["choices"].node.value):
                yield ("parameters", key, "choices", index), key, choice
    for key in sweep.trial:
        yield ("trial", key), key, node.entries["trial"].node.entries[key].node


def _not_a_stage(key: str) -> Refusal:
    first, _, rest = key.partition(".")
    close = suggestion(first, STAGES) if rest else ""
    message = (
        f"no key that the objective depends on{close or ', expected one of generate, train or evaluate, as in train.inner.lr'}"
    )
    return Refusal((key,), message, at_key=True, unknown=True)


def _placed(node: Node, path: list[str], value: Node) -> Node:
    first, *rest = path
    inner = node.entries[first].node if first in node.entries else Node(value.place, {})
    entry = Entry(value.place, _placed(inner, rest, value) if rest else value)
    return Node(node.place, {**node.entries, first: entry})
