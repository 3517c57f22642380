"""`pipelines.yaml` → checked pipelines, or every mistake of the file at once.

A pipeline's block is merged over the block that it `extends`, `--set` options are merged over that, and the models check the
result. Keys and values keep their places through both merges, so that an inherited mistake is named once, where it was written.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from metaopt_core.errors import UserError
from metaopt_core.spec import explain, ranges
from metaopt_core.spec.document import BROKEN, Entry, Mistake, Node, Place, dotted, read_file, read_value
from metaopt_core.spec.pipeline import PipelineSpec
from metaopt_core.spec.schema import Schema, kind_key, kinds, member_of, models_schema, resolve
from metaopt_core.spec.train import ALGORITHMS, TrainSpec

_NAME = re.compile(models_schema()["properties"]["name"]["pattern"])
_NAME_RULE = "lower-case letters, digits, . _ and -, a letter or digit first"


class SpecError(UserError):
    """Every mistake of a pipelines file and of the `--set` options given with it: a line each, in the order of the file."""

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        ordered = sorted(
            dict.fromkeys(mistakes), key=lambda mistake: (not mistake.place.line, mistake.place.line, mistake.place.column)
        )
        self.mistakes = tuple(ordered)
        super().__init__("\n".join(str(mistake) for mistake in self.mistakes))


def load(path: Path, overrides: Mapping[str, Sequence[str]] = MappingProxyType({})) -> dict[str, PipelineSpec]:
    """Reads and checks a pipelines file.

    path: the file; messages name it as it is given here.
    overrides: pipeline → `--set` options, each `KEY.KEY=VALUE` with a value in YAML. They change that pipeline alone, not those
        that extend it, and the file has to be right without them.

    Returns all pipelines by name, in the order of the file. Raises SpecError.
    """
    root, mistakes = read_file(_text(path), str(path))
    if root is None:
        raise SpecError(mistakes)
    blocks = _blocks(root, Place(str(path), 1, 1), mistakes)
    parents = _parents(blocks, mistakes)

    checked: dict[str, _Checked] = {}
    for name in sorted(blocks, key=lambda name: len(parents[name].names)):  # parents first
        lineage = parents[name]
        layers = [blocks[link].node for link in (*reversed(lineage.names), name) if isinstance(blocks[link].node.value, dict)]
        block = reduce(_merge, map(_without_extends, layers), Node(blocks[name].node.place, {}))
        said = frozenset[tuple[str, str]]().union(*(checked[parent].said for parent in lineage.names if parent in checked))
        checked[name] = _check(name, block, blocks[name].key, lineage.complete, said)
        mistakes += checked[name].mistakes
        if overrides.get(name):
            key, options = _options(overrides[name], mistakes)
            changed = _check(name, _merge(block, options), key, lineage.complete, checked[name].said)
            mistakes += changed.mistakes
            checked[name] = replace(changed, said=checked[name].said)
    for name in [name for name in overrides if blocks and name not in blocks]:
        message = explain.unknown_name("pipeline", name, blocks)
        mistakes += [Mistake(_option_place(option), "", message) for option in overrides[name]]

    specs = {name: checked[name].spec for name in blocks}
    if mistakes:
        raise SpecError(mistakes)
    return {name: _beside(path, spec) for name, spec in specs.items() if spec is not None}


def _beside(path: Path, spec: PipelineSpec) -> PipelineSpec:
    """The spec with relative paths of data taken as beside the file, wherever the command runs."""
    return spec.model_copy(update={"generate": spec.generate.beside(path.absolute().parent)})


# --- the file, down to the pipelines' blocks ----------------------------------------------------------------------------


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        message = "no such file, expected a pipelines file (-f FILE names another one)"
    except IsADirectoryError:
        message = f"a directory, expected a file, such as {path / 'pipelines.yaml'}"
    except (OSError, ValueError) as error:
        message = f"cannot be read ({getattr(error, 'strerror', None) or error}), expected a pipelines file"
    else:
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            before = data[: error.start].decode()
            place = Place(str(path), before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1)
            mistake = Mistake(place, "", f"byte 0x{data[error.start]:02X} is not UTF-8, expected text in UTF-8")
            raise SpecError([mistake]) from None
    raise SpecError([Mistake(Place(str(path)), "", message)])


def _blocks(root: Node, start: Place, mistakes: list[Mistake]) -> dict[str, Entry]:
    """The entries below `pipelines`: name → block."""
    if root.value is None:
        mistakes.append(Mistake(start, "", "the file is empty, expected a mapping with the key pipelines"))
    elif not isinstance(root.value, dict):
        if root.value is not BROKEN:
            mistakes.append(Mistake(root.place, "", f"expected a mapping with the key pipelines, found {root.describe()}"))
    else:
        unknown = [(entry.key, key) for key, entry in root.entries.items() if key != "pipelines"]
        mistakes += [Mistake(place, key, explain.unknown_key(key, ["pipelines"])) for place, key in unknown]
        if "pipelines" not in root.entries and not any("did you mean" in mistake.message for mistake in mistakes):
            mistakes.append(Mistake(root.place, "pipelines", "missing, expected a mapping from names to pipelines"))
    blocks = root.entries.get("pipelines", Entry(start, Node(start, BROKEN))).node
    if blocks.value is not BROKEN and not blocks.entries:
        mistakes.append(
            Mistake(blocks.place, "pipelines", f"expected a mapping from names to pipelines, found {blocks.describe()}")
        )
    for name, entry in blocks.entries.items():
        if not _NAME.fullmatch(name):
            mistakes.append(Mistake(entry.key, name, f'expected a name of {_NAME_RULE}, found "{name}"'))
        if not isinstance(entry.node.value, dict) and entry.node.value is not BROKEN:
            message = f"expected a mapping with keys such as extends, generate, train, found {entry.node.describe()}"
            mistakes.append(Mistake(entry.node.place, name, message))
    return blocks.entries


@dataclass(frozen=True)
class _Lineage:
    """names: the pipelines that one extends, the nearest first. complete: the blocks of all of them could be read."""

    names: tuple[str, ...]
    complete: bool


def _parents(blocks: Mapping[str, Entry], mistakes: list[Mistake]) -> dict[str, _Lineage]:
    target = {name: _extended(name, entry.node, blocks, mistakes) for name, entry in blocks.items()}
    in_circles: set[str] = set()
    lineages: dict[str, _Lineage] = {}
    for name in blocks:
        chain = [name]
        while (parent := target[chain[-1]]) is not None and parent not in chain:
            chain.append(parent)
        if parent == name and name not in in_circles:
            in_circles.update(chain)
            place = blocks[name].node.entries["extends"].node.place
            circle = " extends ".join([*chain, name])
            mistakes.append(
                Mistake(place, f"{name}.extends", f"a circle ({circle}), expected a pipeline that does not extend this one")
            )
        readable = (isinstance(blocks[link].node.value, dict) for link in chain)
        ends = target[chain[-1]] is None and "extends" not in blocks[chain[-1]].node.entries
        lineages[name] = _Lineage(() if parent == name else tuple(chain[1:]), ends and all(readable))
    return lineages


def _extended(name: str, block: Node, blocks: Mapping[str, Entry], mistakes: list[Mistake]) -> str | None:
    """The pipeline that a block extends, if there is one that it can."""
    if "extends" not in block.entries:
        return None
    node = block.entries["extends"].node
    if isinstance(node.value, str) and node.value in blocks:
        return node.value
    if node.value is not BROKEN:
        known = [other for other in blocks if other != name]
        message = f"expected the name of a pipeline, found {node.describe()}"
        message = explain.unknown_name("pipeline", node.value, known) if isinstance(node.value, str) and known else message
        mistakes.append(Mistake(node.place, f"{name}.extends", message))
    return None


def _without_extends(block: Node) -> Node:
    return Node(block.place, {key: entry for key, entry in block.entries.items() if key != "extends"})


# --- merging ------------------------------------------------------------------------------------------------------------


def _merge(lower: Node, upper: Node, schema: Schema | None = None) -> Node:
    """Mappings are merged key by key; anything else is replaced, and so is a mapping that becomes one of another kind."""
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
    """What is left of a `train` block below one that names another algorithm, whose preset replaces what it stands for."""
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
    """Which of the models a block is for, if it says so."""
    if key := kind_key(schema):
        return block.entries[key].node.value if key in block.entries else None
    named = [tag for tag in kinds(schema) if tag in block.entries]
    return named[0] if len(named) == 1 else None


def _together(lower: Place, upper: Place) -> Place:
    """Two `--set` options below one key stand for it together; otherwise the upper layer does."""
    if lower.line is None and upper.line is None and lower != upper:
        return Place(f"{lower.source} {upper.source}")
    return upper


# --- `--set` ------------------------------------------------------------------------------------------------------------


def _options(options: Sequence[str], mistakes: list[Mistake]) -> tuple[Place, Node]:
    """The place of all options together, and the block that they amount to."""
    everywhere = Place(" ".join(_option_place(option).source for option in options))
    block = Node(everywhere, {})
    for option in options:
        place = _option_place(option)
        key, equals, text = option.partition("=")
        path = tuple(key.strip().split("."))
        if not equals or not all(path):
            mistakes.append(Mistake(place, "", "expected KEY=VALUE, as in train.outer.lr=0.002"))
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
    return Place(f"--set {option}")


# --- checking -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Checked:
    """spec: the pipeline, if it is right. said: path and message of every mistake, those of its parents included."""

    spec: PipelineSpec | None
    mistakes: list[Mistake] = field(default_factory=list)
    said: frozenset[tuple[str, str]] = frozenset()


def _check(name: str, block: Node, layer: Place, complete: bool, said: frozenset[tuple[str, str]]) -> _Checked:
    """Checks a merged block.

    layer: the place of the upper layer: the pipeline's key, or the `--set` options.
    complete: all lower layers are there; otherwise what seems to be missing may be in them.
    said: what was said of the lower layers.
    """
    mistakes = []
    if "name" in block.entries:
        message = "unknown key: the key of the block is the pipeline's name, expected no other"
        mistakes.append(_mistake(block.entries["name"].key, ("name",), message))
    values = {key: entry.node.plain() for key, entry in block.entries.items()} | {
        "name": name if _NAME.fullmatch(name) else "unnamed"
    }
    spec, refused = _validate(values, block)
    if spec is not None and spec.sweep is not None:
        own = {"name": spec.name}
        refused = list(ranges.refusals(spec.sweep, block, lambda changed: _validate(changed.plain() | own, changed)[1]))
        spec = None if refused else spec
    repeated = set(said)
    for refusal in refused:
        if refusal.absence and not complete:
            continue
        place, written_here = _locate(block, refusal, layer)
        remark = (dotted(refusal.path), refusal.message)
        if remark in said and not written_here:
            continue  # said of a lower layer, where it is to be mended
        repeated.add(remark)
        mistakes.append(_mistake(place, refusal.path, refusal.message))
    return _Checked(spec, mistakes, frozenset(repeated))


def _validate(values: Mapping[str, Any], block: Node) -> tuple[PipelineSpec | None, list[explain.Refusal]]:
    try:
        return PipelineSpec.model_validate(values), []
    except ValidationError as error:
        refused = list(explain.refusals(error, block))
        wrong = {str(details["loc"][0]) for details in error.errors() if details["loc"]}
    # The models look for impossible combinations where each value is right. Blocks that no combination needs must not hide them.
    optional = models_schema()["properties"].keys() - set(models_schema()["required"])
    if wrong and wrong <= optional:
        _, more = _validate({key: value for key, value in values.items() if key not in wrong}, block)
        refused += [refusal for refusal in more if refusal.path[0] not in wrong]
    return None, refused


def _locate(block: Node, refusal: explain.Refusal, layer: Place) -> tuple[Place, bool]:
    """Where a mistake is to be pointed at, and whether the key or value that it is about was written there.

    A value is to blame itself. For a key or a combination it is the deepest key on the path that the upper layer has written: the
    lower layers were right without it.
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
