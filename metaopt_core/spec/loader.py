"""`pipelines.yaml` → checked pipelines, or every mistake of the file at once.

A pipeline's block is merged over the block that it `extends`, `--set` options are merged over that, and the models check the
result. Keys and values keep their places through both merges, so that an inherited mistake is reported once, where it was written.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from metaopt_core.errors import UserError
from metaopt_core.spec import addresses, explain, includes, ranges
from metaopt_core.spec.base import DEEPEST
from metaopt_core.spec.document import BROKEN, Entry, Mistake, Node, Place, dotted, read_value, shown
from metaopt_core.spec.includes import Files
from metaopt_core.spec.pipeline import PipelineSpec
from metaopt_core.spec.schema import Schema, kind_key, kinds, member_of, models_schema, resolve
from metaopt_core.spec.train import ALGORITHMS, TrainSpec

_MOST_MISTAKES = 300  # after this many, no further pipeline is checked
_MOST_CHECKED = 200_000  # values of all pipelines, each with what it extends; takes two seconds
_MOST_TRIED = 2_000  # values of sweeps that are checked beforehand; trials check their own
_MOST_OF_CIRCLE = 10
_LONGEST_OPTION = 200  # characters of an option in messages


class SpecError(UserError):
    """All mistakes in a pipelines file and in the `--set` options given with it: one a line, in the order of the file."""

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        unique = dict.fromkeys(mistakes)
        sources = {source: number for number, source in enumerate(dict.fromkeys(one.place.source for one in unique))}
        self.mistakes = tuple(
            sorted(unique, key=lambda one: (not one.place.line, sources[one.place.source], one.place.line, one.place.column))
        )
        super().__init__("\n".join(addresses.scrubbed(str(mistake)) for mistake in self.mistakes))


class Pipelines(dict[str, PipelineSpec]):
    """Checked pipelines by name, those of the file itself first, then those that it includes.

    included: for pipelines that another file defines, name → file as messages name it.
    """

    def __init__(self, specs: Mapping[str, PipelineSpec], included: Mapping[str, str]) -> None:
        super().__init__(specs)
        self.included = dict(included)


def load(path: Path, overrides: Mapping[str, Sequence[str]] = MappingProxyType({})) -> Pipelines:
    """Read and check a pipelines file and its includes.

    path: the file; messages name it as it is given here.
    overrides: pipeline → `--set` options, each `KEY.KEY=VALUE` with a value in YAML. They change only that pipeline, not those that
        extend it, and the file has to be valid without them.

    A relative path of data is relative to the file that contains it; in an option, to the folder of `path`. Raises SpecError.
    """
    found = includes.read(path)
    if not found.blocks:
        raise SpecError(found.mistakes)
    blocks, mistakes, effort = found.blocks, found.mistakes, _Effort()
    merged: dict[str, Node] = {}
    checked: dict[str, _Checked] = {}
    lineages = _lineages(found)
    for name, lineage in lineages.items():
        own, below, said = blocks[name].node, Node(blocks[name].node.place, {}), frozenset[tuple[str, str]]()
        if lineage.parent is not None:
            below, said = merged[lineage.parent], checked[lineage.parent].said
        merged[name] = _merge(below, _without_extends(own)) if isinstance(own.value, dict) else below
        checked[name] = _check(name, merged[name], blocks[name].key, lineage.complete, said, effort)
        mistakes += checked[name].mistakes
        if effort.values < 0 or len(mistakes) > _MOST_MISTAKES:
            message = "more than can be checked at once: the pipelines after this one are not checked, expected fewer"
            raise SpecError([*mistakes, Mistake(blocks[name].key, name, message)])
    specs = {name: (checked[name].spec, merged[name]) for name in blocks}
    for name, given in overrides.items():
        if name not in blocks:
            message = explain.unknown_name("pipeline", name, blocks)
            mistakes += [Mistake(_option_place(option), "", message) for option in given]
        elif given:
            key, options = _options(given, mistakes)
            block = _merge(merged[name], options)
            changed = _check(name, block, key, lineages[name].complete, checked[name].said, effort)
            mistakes += changed.mistakes
            specs[name] = changed.spec, block
    beside = {name: _beside(spec, block, found) for name, (spec, block) in specs.items() if spec is not None}
    if mistakes:
        raise SpecError(mistakes)
    return Pipelines(beside, {name: entry.key.source for name, entry in blocks.items() if entry.key.source != str(path)})


def _beside(spec: PipelineSpec, block: Node, found: Files) -> PipelineSpec:
    """The spec with relative paths of data resolved from the file that contains them, wherever the command runs."""
    main = next(iter(found.folders.values()))
    changed: dict[str, Any] = {}
    for key, entry in block.entries["generate"].node.entries.items():
        moved = spec.generate.beside(found.folders.get(entry.node.place.source, main))
        changed |= {key: getattr(moved, key)} if getattr(moved, key) != getattr(spec.generate, key) else {}
    return spec.model_copy(update={"generate": spec.generate.model_copy(update=changed)}) if changed else spec


# --- extends ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Lineage:
    """parent: the pipeline that is extended. complete: it and everything that it extends in turn could be read."""

    parent: str | None
    complete: bool


def _lineages(found: Files) -> dict[str, _Lineage]:
    """What each pipeline extends, parents first."""
    targets = {name: _extended(name, entry.node, found) for name, entry in found.blocks.items()}
    lineages: dict[str, _Lineage] = {}
    for first in found.blocks:
        chain: dict[str, None] = {}  # a dict, because it is ordered and quick to search
        name: str | None = first
        while name is not None and name not in lineages and name not in chain:
            chain[name] = None
            name = targets[name]
        circle = list(chain)[list(chain).index(name) :] if name is not None and name in chain else []
        if circle:
            _report_circle(circle, found)
        in_circle = frozenset(circle)
        for member in reversed(chain):
            block, parent = found.blocks[member].node, None if member in in_circle else targets[member]
            complete = (parent is not None and lineages[parent].complete) or "extends" not in block.entries
            lineages[member] = _Lineage(parent, complete and isinstance(block.value, dict))
    return lineages


def _report_circle(members: Sequence[str], found: Files) -> None:
    start = min(members, key=list(found.blocks).index)
    names = [*members[members.index(start) :], *members[: members.index(start)], start]
    place = found.blocks[start].node.entries["extends"].node.place
    names = names if len(names) <= _MOST_OF_CIRCLE else [*names[: _MOST_OF_CIRCLE - 1], "…", start]
    message = f"a circle ({' extends '.join(names)}), expected a pipeline that does not extend this one"
    found.mistakes.append(Mistake(place, f"{start}.extends", message))


def _extended(name: str, block: Node, found: Files) -> str | None:
    """The pipeline that a block extends, if it names an existing one."""
    if "extends" not in block.entries:
        return None
    node = block.entries["extends"].node
    if isinstance(node.value, str) and node.value in found.blocks:
        return node.value
    if isinstance(node.value, str) and found.whole:
        found.mistakes.append(Mistake(node.place, f"{name}.extends", _no_such_pipeline(node.value, name, found)))
    elif not isinstance(node.value, str) and node.value is not BROKEN:
        message = f"expected the name of a pipeline, found {node.describe()}"
        found.mistakes.append(Mistake(node.place, f"{name}.extends", message))
    return None


def _no_such_pipeline(wanted: str, name: str, found: Files) -> str:
    known = [other for other in found.blocks if other != name]
    start = f"no pipeline {shown(wanted)} in this file{' and what it includes' if len(found.folders) > 1 else ''}"
    if close := explain.suggestion(wanted, known):
        return f"{start}{close}" + (f" There are {explain.either(known, 'and')}" if len(known) > 1 else "")
    others = f"expected {explain.either(known)}" if known else "and no other to extend"
    return f"{start}, {others}; `include: FILE` at the top adds those of another file"


def _without_extends(block: Node) -> Node:
    return Node(block.place, {key: entry for key, entry in block.entries.items() if key != "extends"})


# --- merging ------------------------------------------------------------------------------------------------------------


def _merge(lower: Node, upper: Node, schema: Schema | None = None) -> Node:
    """Merge mappings key by key; replace anything else, also a mapping that becomes another kind of model."""
    schema = resolve(models_schema() if schema is None else schema)
    if not isinstance(lower.value, dict) or not isinstance(upper.value, dict):
        return upper
    lower = _below_algorithm(lower, upper, schema)
    before, after = _kind(lower, schema), _kind(upper, schema)
    if None not in (before, after) and before != after:
        return upper
    properties: Schema = schema.get("properties", {})
    for member in kinds(schema).values():
        properties = properties | member["properties"]
    entries = dict(lower.entries)
    for key, entry in upper.entries.items():
        below = entries.get(key)
        inner = properties.get(key) or member_of(schema)
        merged = _merge(below.node, entry.node, inner) if below else entry.node
        entries[key] = Entry(_together(below.key, entry.key) if below else entry.key, merged)
    return Node(upper.place, entries)


def _below_algorithm(lower: Node, upper: Node, schema: Schema) -> Node:
    """A lower layer's `train` block below one that names another algorithm, whose preset replaces the settings of the first."""
    if schema.get("title") != TrainSpec.__name__ or "algorithm" not in upper.entries:
        return lower
    algorithm = upper.entries["algorithm"].node.value
    default = TrainSpec.model_fields["algorithm"].default
    if algorithm == (lower.entries["algorithm"].node.value if "algorithm" in lower.entries else default):
        return lower
    return _without(lower, ALGORITHMS.get(algorithm, {}) if isinstance(algorithm, str) else {})


def _without(block: Node, brought: Mapping[str, Any]) -> Node:
    entries: dict[str, Entry] = {}
    for key, entry in block.entries.items():
        if key in brought and isinstance(brought[key], Mapping) and isinstance(entry.node.value, dict):
            entries[key] = Entry(entry.key, _without(entry.node, brought[key]))
        elif key not in brought:
            entries[key] = entry
    return Node(block.place, entries)


def _kind(block: Node, schema: Schema) -> Any:
    """Which of several models a block is for, if it says so."""
    if key := kind_key(schema):
        return block.entries[key].node.value if key in block.entries else None
    named = [tag for tag in kinds(schema) if tag in block.entries]
    return named[0] if len(named) == 1 else None


def _together(lower: Place, upper: Place) -> Place:
    """The place of a merged mapping: both options if two `--set` options are below one key, else the upper layer's."""
    if lower.line is None and upper.line is None and lower != upper:
        return Place(f"{lower.source} {upper.source}")
    return upper


# --- `--set` ------------------------------------------------------------------------------------------------------------


def _options(options: Sequence[str], mistakes: list[Mistake]) -> tuple[Place, Node]:
    """The place of all options together, and the block that they form."""
    everywhere = Place(" ".join(_option_place(option).source for option in options))
    block = Node(everywhere, {})
    for option in options:
        place = _option_place(option)
        key, equals, text = option.partition("=")
        path = tuple(key.strip().split("."))
        if not equals or not all(path):
            mistakes.append(Mistake(place, "", "expected KEY=VALUE, as in train.outer.lr=0.002"))
            continue
        if len(path) > DEEPEST:
            mistakes.append(Mistake(place, "", f"a key of {len(path):,} parts, expected a few, as in train.outer.lr"))
            continue
        if path[0] in ("extends", "name"):
            mistakes.append(Mistake(place, path[0], "cannot be set by an option, expected it in the file"))
            continue
        node, more = read_value(text, place.source, path)
        mistakes += more
        if node is not None:
            block = _merge(block, reduce(lambda inner, part: Node(place, {part: Entry(place, inner)}), reversed(path), node))
    return everywhere, block


def _option_place(option: str) -> Place:
    key, _, value = option.partition("=")
    if key.strip() == "log.tracking_uri" and addresses.problem(value):
        option = f"{key}=…"  # it may contain a secret
    short = option if len(option) <= _LONGEST_OPTION else f"{option[: _LONGEST_OPTION - 1]}…"
    return Place(f"--set {short}")


# --- checking -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Checked:
    """spec: the pipeline, if it is valid. said: path and message of every mistake, including its parents'."""

    spec: PipelineSpec | None
    mistakes: list[Mistake] = field(default_factory=list)
    said: frozenset[tuple[str, str]] = frozenset()


@dataclass
class _Effort:
    """How much may still be checked: values of pipelines, which count again for each variant, and values that a sweep may try."""

    values: int = _MOST_CHECKED
    tried: int = _MOST_TRIED


def _check(name: str, block: Node, layer: Place, complete: bool, said: frozenset[tuple[str, str]], effort: _Effort) -> _Checked:
    """Check a merged block.

    layer: the place of the upper layer: the pipeline's key, or the `--set` options.
    complete: all lower layers could be read; otherwise what seems to be missing may be in them.
    said: the mistakes already reported for the lower layers.
    """
    mistakes = []
    if "name" in block.entries:
        message = "unknown key: the key of the block is the pipeline's name, expected no other"
        mistakes.append(_mistake(block.entries["name"].key, ("name",), message))
    values = {key: entry.node.plain() for key, entry in block.entries.items()} | {
        "name": name if includes.NAME.fullmatch(name) else "unnamed"
    }
    spec, refused = _validate(values, block)
    effort.values -= block.size * (1 + len(spec.shifts if spec is not None else ()))
    if spec is not None and spec.sweep is not None:
        own = {"name": spec.name}
        candidates = list(islice(ranges.candidates(spec.sweep, block), effort.tried))
        effort.tried -= len(candidates)
        refused = list(ranges.refusals(candidates, block, lambda changed: _validate(changed.plain() | own, changed)[1]))
        spec = None if refused else spec
    repeated = set(said)
    for refusal in refused:
        if refusal.absence and not complete:
            continue
        place, written_here = _locate(block, refusal, layer)
        remark = (dotted(refusal.path), refusal.message)
        if remark in said and not written_here:
            continue  # reported for a lower layer, where it has to be mended
        repeated.add(remark)
        mistakes.append(_mistake(place, refusal.path, refusal.message))
    return _Checked(spec, mistakes, frozenset(repeated))


def _validate(values: Mapping[str, Any], block: Node) -> tuple[PipelineSpec | None, list[explain.Refusal]]:
    try:
        return PipelineSpec.model_validate(values), []
    except ValidationError as error:
        refused = list(islice(explain.refusals(error, block), _MOST_MISTAKES))
        wrong = {str(details["loc"][0]) for details in error.errors() if details["loc"]}
    # The models look for impossible combinations only if each value is valid. A mistake in an unrelated block must not hide them.
    optional = models_schema()["properties"].keys() - set(models_schema()["required"])
    if wrong and wrong <= optional:
        _, more = _validate({key: value for key, value in values.items() if key not in wrong}, block)
        refused += [refusal for refusal in more if refusal.path[0] not in wrong]
    return None, refused


def _locate(block: Node, refusal: explain.Refusal, layer: Place) -> tuple[Place, bool]:
    """The place to report for a mistake, and whether the key or value that it is about was written there.

    A wrong value is reported at its own place. A key or a combination is reported at the deepest key on the path that the upper
    layer wrote, because the lower layers were valid without it.
    """
    place, written, node, key = layer, False, block, layer
    for depth, part in enumerate(refusal.path, 1):
        if isinstance(part, int):
            node, key = node.value[part], node.value[part].place
        elif part in node.entries:
            key, node = node.entries[part].key, node.entries[part].node
        else:
            break
        if (key.line is None) == (layer.line is None) and key.pipeline == layer.pipeline:
            place, written = key, depth == len(refusal.path)
    else:
        if not refusal.at_key:
            return node.place, True
        if refusal.unknown:
            return key, True
    return place, written


def _mistake(place: Place, path: tuple[str | int, ...], message: str) -> Mistake:
    return Mistake(place, dotted((place.pipeline, *path) if place.pipeline else path), message)
