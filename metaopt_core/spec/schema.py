"""JSON Schema (draft 2020-12) of `pipelines.yaml`, for editors: derived from the models, adapted to what a file may leave out.

A block in the file may be partial, since `extends` can supply the rest. So nothing inside a pipeline is required, and a choice
between models (`distribution`, a network's `name`, a schedule) becomes one mapping with the keys of all models, restricted by a
rule to those of the chosen one. The loader checks more than the schema and has the last word.
"""

import copy
from collections.abc import Iterator
from functools import cache
from typing import Any

from metaopt_core.spec.pipeline import PipelineSpec

Schema = dict[str, Any]


@cache
def models_schema() -> Schema:
    """The JSON Schema of a whole PipelineSpec, as pydantic derives it. Shared, so don't change it."""
    return PipelineSpec.model_json_schema()


def resolve(schema: Schema) -> Schema:
    """A schema of `models_schema()` without its outer reference, and without `null` as an alternative."""
    options = [option for option in schema.get("anyOf", ()) if option != {"type": "null"}]
    if len(options) == 1:
        return resolve(options[0])
    if "$ref" in schema:
        definition: Schema = models_schema()["$defs"][schema["$ref"].removeprefix("#/$defs/")]
        return definition
    return schema


def kinds(schema: Schema) -> dict[str, Schema]:
    """The models among which a resolved schema chooses, by their tags; empty if it is not a choice.

    The tag is the value of a key that all models have (`kind_key`), or else the one key that a model requires.
    """
    members = [resolve(member) for member in schema.get("oneOf", ())]
    key = kind_key(schema)
    return {member["properties"][key]["const"] if key else member["required"][0]: member for member in members}


def kind_key(schema: Schema) -> str | None:
    """The key whose value chooses among `kinds`, if there is one."""
    key: str | None = schema.get("discriminator", {}).get("propertyName")
    return key


def member_of(schema: Schema) -> Schema:
    """The schema of the values of a mapping with free keys, if there is one."""
    members = schema.get("additionalProperties")
    return members if isinstance(members, dict) else {}


def file_schema() -> Schema:
    """The JSON Schema of the file form of all pipelines."""
    definitions = {name: _block(definition) for name, definition in models_schema()["$defs"].items()}
    pipeline = _block(models_schema())
    extends = {
        "type": "string",
        "description": "A pipeline of this file, or of one that it includes, whose settings are inherited: mappings are merged key "
        "by key, anything else is replaced.",
    }
    pipeline["properties"] = {"extends": extends} | {k: v for k, v in pipeline["properties"].items() if k != "name"}
    pipeline["description"] = "One pipeline: generate, train, evaluate, log. Its key is its name."
    whole = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "metaopt pipelines",
        "description": "What to meta-learn: the pipelines for `metaopt run` and `metaopt serve`.",
        "type": "object",
        "properties": {
            "pipelines": {
                "description": "Every pipeline, by its name.",
                "type": "object",
                "propertyNames": {"pattern": models_schema()["properties"]["name"]["pattern"]},
                "additionalProperties": pipeline,
                "minProperties": 1,
            },
            "include": {
                "description": "Other pipelines files, by a path or a list of paths, relative to this one: their pipelines can be "
                "extended here, and run by name.",
                "anyOf": [
                    {"type": "string", "minLength": 1},
                    {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1},
                ],
            },
        },
        "anyOf": [{"required": ["pipelines"]}, {"required": ["include"]}],
        "additionalProperties": False,
    }
    used = set(_references(whole, definitions))
    return whole | {"$defs": {name: definition for name, definition in definitions.items() if name in used}}


def _block(schema: Schema) -> Schema:
    """A model's schema with nothing required, and with each choice as one mapping."""
    block = copy.deepcopy({key: value for key, value in schema.items() if key not in ("title", "required", "$defs")})
    for key, value in block["properties"].items():
        choice = resolve(value)
        if "oneOf" in choice:
            described = {name: value[name] for name in ("description", "default") if name in value}
            nullable = {"type": ["object", "null"]} if {"type": "null"} in value.get("anyOf", ()) else {}
            block["properties"][key] = described | _choice(choice) | nullable
        else:
            value.pop("title", None)
    return block


def _choice(choice: Schema) -> Schema:
    """One mapping for a choice among models."""
    key, members = kind_key(choice), kinds(choice)
    properties: Schema = {}
    for member in members.values():
        properties |= _block(member)["properties"]
    if key:
        about = {text for member in members.values() if (text := member["properties"][key].get("description"))}
        properties[key] = {"enum": list(members), "description": " ".join(sorted(about))}
    rules = []
    for tag, member in members.items():
        named = {"required": [key], "properties": {key: {"const": tag}}} if key else {"required": [tag]}
        rules.append({"if": {"type": "object", **named}, "then": {"propertyNames": {"enum": list(member["properties"])}}})
    return {"type": "object", "properties": properties, "additionalProperties": False, "allOf": rules}


def _references(schema: Any, definitions: Schema) -> Iterator[str]:
    """The names of all definitions that a schema refers to, directly or not. (The models contain no circle.)"""
    if isinstance(schema, dict):
        if "$ref" in schema:
            name = schema["$ref"].removeprefix("#/$defs/")
            yield name
            yield from _references(definitions[name], definitions)
        for value in schema.values():
            yield from _references(value, definitions)
    elif isinstance(schema, list):
        for value in schema:
            yield from _references(value, definitions)
