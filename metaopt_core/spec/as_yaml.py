"""A pipeline as the text of a pipelines file, by the same rules by which `document` reads one, so that it reads back unchanged.

PyYAML writes YAML 1.1, in which the text `1e5` needs no quotes but `on` does.
"""

from collections.abc import Mapping
from typing import Any

import yaml

from metaopt_core.spec.document import scalar
from metaopt_core.spec.pipeline import PipelineSpec

_TAGS: dict[type, str] = {type(None): "null", bool: "bool", int: "int", float: "float", str: "str"}
_WIDTH = 120


def spec_yaml(spec: PipelineSpec) -> str:
    """The spec as its own pipelines file, with all defaults filled in."""
    body = spec.model_dump(mode="json")
    return pipelines_yaml({body.pop("name"): body})


def pipelines_yaml(pipelines: Mapping[str, Any]) -> str:
    """A pipelines file from name → block, each of plain dicts, lists and scalars."""
    return str(yaml.dump({"pipelines": dict(pipelines)}, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_WIDTH))


class _Dumper(yaml.SafeDumper):
    """Quotes a text that would be read as something else without quotes."""

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        """The tag that this text would have without quotes."""
        if kind is not yaml.ScalarNode or not implicit[0]:
            return str(super().resolve(kind, value, implicit))
        if value == "<<":
            return "tag:yaml.org,2002:merge"
        try:
            return f"tag:yaml.org,2002:{_TAGS[type(scalar(value))]}"
        except ValueError:  # a number of too many digits to be read as one
            return "tag:yaml.org,2002:int"

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        """Write equal parts out, because aliases are refused when reading."""
        return True


def _number(dumper: yaml.SafeDumper, value: float) -> yaml.ScalarNode:
    text = repr(value)
    special = {"inf": ".inf", "-inf": "-.inf", "nan": ".nan"}
    return dumper.represent_scalar("tag:yaml.org,2002:float", special.get(text, text))


_Dumper.add_representer(float, _number)
