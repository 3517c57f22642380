"""Generated pipelines: values that fit the JSON Schema of the models, and texts that YAML has its own ideas about."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import strategies as st

from metaopt_core.spec.schema import Schema, kinds, models_schema, resolve

TRICKY = (
    *("1e5", "1E-3", "0o17", "0x1F", "010", "1_000", ".5", "5.", "+.inf", ".nan", "12:30", "9" * 5000),
    *("null", "~", "", "true", "True", "tRUE", "on", "no", "y", "2026-01-01", "<<", "=", "-", "---", "..."),
    *(
        "*a",
        "&a",
        "!t",
        "%t",
        "@t",
        "`t",
        "|",
        ">",
        "?",
        "? a",
        "- a",
        "a: b",
        "a:",
        "a #b",
        "# b",
        "{a",
        "[a",
        "a]",
        "a, b",
        "'",
        '"',
    ),
    *(
        "'",
        '"',
        " a",
        "a ",
        "a\n",
        "\na",
        "a\n\n b\n",
        "a\tb",
        "\t",
        "a\u2028b",
        "\ufeffa",
        "ü",
        "🙂",
        "\\",
        "\\n",
        "a" * 200,
        "a b " * 80,
    ),
)

texts = st.sampled_from(TRICKY) | st.text(st.characters(exclude_categories=["Cc", "Cs"], include_characters="\t\n"), max_size=30)
numbers = st.integers(-(10**20), 10**20) | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | numbers | texts
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=5
)


FORMS = {  # texts of a form that the schema does not say
    "path": ("mypackage.nets:Net", "a:B"),
    "every": ("6h", "90 s"),
    "time": ("8m", "1d"),
    "cron": ("0 3 * * *", "*/5 * * * 1-5"),
    "timezone": ("UTC", "Europe/Berlin"),
    "tracking_uri": ("http://127.0.0.1:5000", "sqlite:////tmp/x.db", "https://mlflow.example.org/a b"),
    "register_as": ("1e5", "0o17", "null", "on", "12 a", "-", ".5 "),
}


def of(schema: Schema, key: str = "") -> st.SearchStrategy[Any]:
    """Values that fit a schema of the models, or nearly: a rule that spans several keys may be broken."""
    if {"type": "null"} in schema.get("anyOf", ()):
        return st.none() | st.one_of([of(one, key) for one in schema["anyOf"] if one != {"type": "null"}])
    schema = resolve(schema)
    if "anyOf" in schema:
        return st.one_of([of(one, key) for one in schema["anyOf"]])
    if "oneOf" in schema:
        return st.one_of([of(one, key) for one in kinds(schema).values()])
    if "enum" in schema or "const" in schema:
        return st.sampled_from(schema.get("enum") or [schema["const"]])
    match schema.get("type"):
        case "integer" | "number" as kind:
            return _numbers(schema, whole=kind == "integer")
        case "boolean":
            return st.booleans()
        case "string":
            return st.sampled_from(FORMS[key]) if key in FORMS else texts
        case "array" if "prefixItems" in schema:
            return st.tuples(*map(of, schema["prefixItems"])).map(sorted)
        case "array":
            return st.lists(of(schema["items"]), min_size=schema.get("minItems", 0), max_size=4)
        case "object" if "properties" in schema:
            required = {name: of(value, name) for name, value in schema["properties"].items() if name in schema.get("required", ())}
            allowed = {name: of(value, name) for name, value in schema["properties"].items() if name not in required}
            return st.fixed_dictionaries(required, optional=allowed)
        case "object":
            members, least = schema.get("additionalProperties"), schema.get("minProperties", 0)
            return st.dictionaries(texts, of(members) if isinstance(members, dict) else anything, min_size=least, max_size=3)
    return anything


def _numbers(schema: Schema, *, whole: bool) -> st.SearchStrategy[float]:
    low, high = (schema.get(name) for name in ("minimum", "maximum"))
    above, below = (schema.get(name) for name in ("exclusiveMinimum", "exclusiveMaximum"))
    if whole:
        least = low if low is not None else 0
        return st.integers(least, least + 20) | st.integers(least, high if high is not None else (below or 2**63) - 1)
    floats = st.floats(
        low if low is not None else above,
        high if high is not None else below,
        exclude_min=low is None and above is not None,
        exclude_max=high is None and below is not None,
        allow_nan=False,
        allow_infinity=False,
    )
    return floats | st.sampled_from([0.1, 1e-5, 0.5, 1])


def _keys(schema: Schema) -> dict[tuple[str, ...], Schema]:
    """Path and schema of every key of a pipeline, the blocks themselves among them."""
    found: dict[tuple[str, ...], Schema] = {}
    schema = resolve(schema)
    for kind in kinds(schema).values() or [schema]:
        for name, value in kind.get("properties", {}).items():
            found |= {(name,): value} | {(name, *path): inner for path, inner in _keys(value).items()}
    return found


KEYS = {path: schema for path, schema in _keys(models_schema()).items() if path != ("name",)}


@st.composite
def pipelines(draw: st.DrawFn, bases: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The block of a pipeline: one of some right ones with a few keys changed, each to something that it takes."""
    block: dict[str, Any] = copy.deepcopy(dict(draw(st.sampled_from(bases))))
    for *blocks, key in draw(st.lists(st.sampled_from(sorted(KEYS)), max_size=4)):
        inner = block
        for name in blocks:
            if not isinstance(inner.get(name), dict):
                inner[name] = {}
            inner = inner[name]
        inner[key] = draw(of(KEYS[*blocks, key], key))
    return block
