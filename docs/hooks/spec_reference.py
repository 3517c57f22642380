"""The reference of every key of a pipelines file, from the JSON Schema of its models, and the table of algorithms."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from metaopt_core.spec.schema import Schema, file_schema, kind_key, kinds, member_of, models_schema, resolve
from metaopt_core.spec.train import ALGORITHMS

PAPERS = {
    "maml": "Finn et al. 2017, equation 1",
    "fomaml": "Finn et al. 2017, section 5.2",
    "reptile": "Nichol et al. 2018, algorithm 1: the inner loop runs on support and query examples together",
    "anil": "Raghu et al. 2020",
    "boil": "Oh et al. 2021",
    "meta-sgd": "Li et al. 2017, equation 1",
    "maml++": "Antoniou et al. 2019, section 4",
    "imaml": "Rajeswaran et al. 2019, equation 6",
    "ridge": "Bertinetto et al. 2019, section 3 (R2-D2)",
    "r2d2": "the same as `ridge`",
    "dkt": "Patacchiola et al. 2020, equation 4",
    "adkf": "Chen et al. 2023, section 3.2",
}

INTRODUCTION = """# The pipelines file

Every key of `pipelines.yaml`, with its type, its default and what it does. This page is made from the models that check the file.

A file has `pipelines:`, a mapping from a pipeline's name to its settings, and may have `include:`. An editor that knows JSON Schema
completes and checks the file while you type: its first line names `pipelines.schema.json`, which `metaopt schema` prints.

- `extends: NAME` in a pipeline inherits the settings of another one: mappings are merged key by key, anything else is replaced.
- `include: ../pipelines.yaml`, a path or a list of paths relative to this file, makes the pipelines of other files available in
  this one: they can be extended, and run by name. Every name is defined once. A relative `generate.folder` starts from the file
  that contains it; the home (`.metaopt/`) and your own modules are looked up beside the file that `-f` names. `metaopt serve`
  without names serves only what the file itself defines.
- `metaopt run NAME --set train.outer.lr=0.002` changes one value for one run. Keys are written as on this page.
- A key without a default has to be given, by the pipeline itself or by the one that it extends.
"""


def page() -> str:
    return "\n".join([INTRODUCTION, *_file(), *_pipeline()])


def presets() -> str:
    """The table of algorithms: name, preset, source."""
    rows = ["| `algorithm` | stands for | source |", "|---|---|---|"]
    for name, settings in ALGORITHMS.items():
        said = [f"`{_in_one_line({key: value})}`" for key, value in settings.items()]
        rows.append(f"| `{name}` | {', '.join(said) or 'the defaults'} | {PAPERS.get(name, '')} |")
    return "\n".join(rows)


def _in_one_line(settings: Schema) -> str:
    """Settings as YAML, without the outer braces."""
    return (
        yaml.safe_dump(settings, default_flow_style=True, width=1000, sort_keys=False).strip().removeprefix("{").removesuffix("}")
    )


@dataclass(frozen=True)
class Block:
    """A section: the keys below one key.

    key: dotted, as in train.inner; shared by several kinds of one key. anchor: the section's own.
    """

    key: str
    anchor: str
    title: str
    schema: Schema


def _file() -> Iterator[str]:
    yield "## The file\n"
    yield "| key | value | |"
    yield "|---|---|---|"
    for name, value in file_schema()["properties"].items():
        kind = "[mapping](#pipeline)" if name == "pipelines" else _type(name, value)
        yield f"| `{name}` | {kind} | {_text(value['description'])} |"
    yield ""


def _pipeline() -> Iterator[str]:
    schema = models_schema()
    properties = {name: value for name, value in schema["properties"].items() if name != "name"}
    extends = file_schema()["properties"]["pipelines"]["additionalProperties"]["properties"]["extends"]
    yield "## A pipeline {#pipeline}\n"
    yield from _table("", "", {"extends": {**extends, "default": None}, **properties})
    blocks = {block.anchor: block for block in _blocks("", properties)}  # the same block below several kinds is shown once
    for block in blocks.values():
        yield f"\n## {block.title} {{#{block.anchor}}}\n"
        if block.schema.get("description"):
            yield _text(" ".join(block.schema["description"].split())) + "\n"
        yield from _table(f"{block.anchor}.", f"{block.key}.", block.schema["properties"])


def _blocks(path: str, properties: Schema) -> Iterator[Block]:
    """The sections of all keys whose values have keys themselves, at every depth."""
    for name, value in properties.items():
        key, schema = path + name, resolve(value)
        if "oneOf" not in schema and "properties" not in schema:
            schema = resolve(member_of(schema))
            key += ".KEY" if "oneOf" in schema else ".NAME"
        if "oneOf" in schema:
            tag = kind_key(schema)
            for kind, member in kinds(schema).items():
                yield Block(key, f"{key}-{kind}", f"`{key}` with `{f'{tag}: {kind}' if tag else kind}`", member)
                yield from _blocks(f"{key}.", member["properties"])
        elif "properties" in schema:
            yield Block(key, key, f"`{key}`", schema)
            yield from _blocks(f"{key}.", schema["properties"])


def _table(anchor: str, path: str, properties: Schema) -> Iterator[str]:
    yield "| key | value | default | |"
    yield "|---|---|---|---|"
    for name, value in properties.items():
        default = "" if "default" not in value else _default(value)
        description = value.get("description") or resolve(value).get("description", "")
        cells = (f'<a id="{anchor}{name}"></a>`{name}`', _type(path + name, value), default, _text(description))
        yield f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"
    yield ""


def _default(value: Schema) -> str:
    default = value["default"]
    if default is None:
        return "none"
    if isinstance(default, dict) and ("oneOf" in resolve(value) or "properties" in resolve(value)):
        return "its defaults"
    shown = json.dumps(default, ensure_ascii=False)
    return f"`{shown if default == '' else shown.replace(chr(34), '')}`"


def _type(path: str, schema: Schema) -> str:
    """The type of a value, in words."""
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_type(path, option) for option in schema["anyOf"] if option != {"type": "null"}))
    schema = resolve(schema)
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "oneOf" in schema:
        return ", ".join(f"[{kind}](#{path}-{kind})" for kind in kinds(schema))
    if "prefixItems" in schema:
        return f"[{', '.join(_type(path, item) for item in schema['prefixItems'])}]"
    kind = schema.get("type")
    if kind == "array":
        return f"list of {_type(path, schema.get('items', {}))}"
    if kind == "object":
        return _mapping(path, schema)
    names = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false"}
    return " ".join([names.get(str(kind), "any value"), ", ".join(_bounds(schema))]).strip()


def _mapping(path: str, schema: Schema) -> str:
    if "properties" in schema:
        return f"[mapping](#{path})"
    member = resolve(member_of(schema))
    if "oneOf" in member:
        return f"mapping of {_type(path + '.KEY', member)}"
    return f"[mapping](#{path}.NAME)" if "properties" in member else "mapping"


def _bounds(schema: Schema) -> Iterator[str]:
    signs = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
    for name, sign in signs.items():
        if name in schema and schema[name] < 2**53:  # a larger one is a limit of databases
            yield f"{sign} {schema[name]}"


def _text(text: Any) -> str:
    """A description as Markdown, with everything outside of code escaped."""
    parts = re.split(r"(`[^`]*`)", str(text))
    return "".join(part if part.startswith("`") else re.sub(r"([*_<\[\]])", r"\\\1", part) for part in parts)
