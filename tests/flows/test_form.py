"""The schema of a deployment's parameters, as Prefect's page takes it."""

import json

import jsonschema
from prefect.utilities.callables import parameter_schema

from flows.form import with_fields
from flows.pipeline import pipeline
from tests.made_outputs import sinusoid_spec


def test_every_choice_between_models_is_one_that_the_page_shows_with_fields() -> None:
    plain = parameter_schema(pipeline)
    schema = with_fields(plain)
    assert "oneOf" in plain.model_dump_json()
    assert "oneOf" not in schema.model_dump_json()
    definitions = schema.definitions
    choices = definitions["PipelineSpec"]["properties"]["generate"]["anyOf"]
    titles = [definitions[choice["$ref"].removeprefix("#/definitions/")]["title"] for choice in choices if "$ref" in choice]
    assert {"sinusoid", "mixture", "omniglot"} <= set(titles)


def test_what_a_run_takes_is_still_what_the_schema_takes() -> None:
    schema = with_fields(parameter_schema(pipeline)).model_dump(exclude_none=True)
    spec = json.loads(sinusoid_spec("waves").model_dump_json())
    checked = jsonschema.Draft202012Validator(schema)
    assert checked.is_valid({"spec": spec})
    assert checked.is_valid({"spec": spec | {"generate": {"distribution": "mine:Waves", "height": 3}}})
    assert not checked.is_valid({"spec": spec | {"generate": spec["generate"] | {"noise": "loud"}}})
