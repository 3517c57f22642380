"""What each column of a table is for, as far as its name and type tell."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from metaopt_core.distributions.table.files import places
from metaopt_core.distributions.table.settings import TableSettings
from metaopt_core.distributions.table.source import Kind, columns, require
from metaopt_core.errors import UserError


@dataclass(frozen=True)
class Roles:
    """What is read of a table.

    numeric, categorical: candidates for features, in the table's order; guessed: categorical ones that may be too many.
    unused: column → why it is left out. wanted: column → what it is read as.
    """

    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    guessed: frozenset[str]
    unused: Mapping[str, str]
    wanted: Mapping[str, Kind] = field(default_factory=dict)


def roles(spec: TableSettings) -> Roles:
    """Raises UserError for a column that isn't there, and where no feature is left."""
    there = columns(spec)
    file = places(spec)[0].name
    listed = {
        name: f"generate.features.{key}"
        for key in ("numeric", "categorical", "drop")
        if (names := getattr(spec.features, key)) != "auto"
        for name in names
    }
    require(spec.with_roles | {name: key for name, key in listed.items() if name not in spec.with_roles}, list(there), file)
    free = [name for name in there if name not in spec.with_roles and name not in listed]
    numeric, categorical, unused = [], [], dict.fromkeys(spec.features.drop, "listed under drop")
    guessed = set()
    for name, kind in there.items():
        if listed.get(name) == "generate.features.numeric" or (
            name in free and kind == "number" and spec.features.numeric == "auto"
        ):
            numeric.append(name)
        elif listed.get(name) == "generate.features.categorical":
            categorical.append(name)
        elif name in free and kind == "text" and spec.features.categorical == "auto":
            categorical.append(name)
            guessed.add(name)
        elif name in free:
            unused[name] = f"{'a column of dates' if kind == 'time' else 'not listed'} under features"
    if not numeric and not categorical:
        raise UserError(
            f"generate.features: {file} has no column that could be one: expected numbers or categories beside task and target"
        )
    wanted: dict[str, Kind] = dict.fromkeys(categorical, "text")
    wanted |= dict.fromkeys([*spec.task_columns, *([] if spec.split.column is None else [spec.split.column])], "text")
    wanted |= {name: "text" for name in (spec.group, spec.entity) if name is not None}
    wanted |= dict.fromkeys(spec.target_columns, "number" if spec.problem == "regression" else "text")
    wanted |= dict.fromkeys(numeric, "number")
    if spec.time is not None:
        wanted[spec.time] = "time"
    return Roles(tuple(numeric), tuple(categorical), frozenset(guessed), unused, wanted)
