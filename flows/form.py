"""The form on Prefect's page that starts a deployment's run: its schema, changed so that the page shows fields.

For a choice between models the page supports only `anyOf`: it offers the models by title, and then the fields of the chosen one.
For `oneOf` with a discriminator, which pydantic writes, it shows a raw JSON box.
"""

from typing import Any

from prefect.utilities.callables import ParameterSchema

_CUSTOM = {
    "type": "object",
    "title": "Custom, by its import path",
    "properties": {"distribution": {"type": "string", "title": "Distribution", "pattern": ":"}},
    "required": ["distribution"],
}
"""The user's own distribution, whose settings are not known here."""


def with_fields(schema: ParameterSchema) -> ParameterSchema:
    """The same parameters, in a form for which the page shows fields."""
    definitions = {name: _titled(_adapted(definition)) for name, definition in schema.definitions.items()}
    return schema.model_copy(update={"properties": _adapted(schema.properties), "definitions": definitions})


def _titled(definition: dict[str, Any]) -> dict[str, Any]:
    """The definition with the name that selects it as its title, if there is one."""
    names = [each["const"] for each in definition.get("properties", {}).values() if isinstance(each, dict) and "const" in each]
    return definition | {"title": names[0]} if names else definition


def _adapted(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_adapted(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: _adapted(value) for key, value in schema.items() if key not in {"oneOf", "discriminator"}}
    if "oneOf" in schema:
        found["anyOf"] = [_adapted(each) for each in schema["oneOf"]]
        if schema.get("discriminator", {}).get("propertyName") == "distribution":
            found["anyOf"].append(_CUSTOM)
    return found
