"""The settings of a table: where its rows are, and what its columns mean."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator, model_validator
from pydantic_core import PydanticCustomError

from metaopt_core.spec.addresses import problem
from metaopt_core.spec.base import Impossibility, Share, Spec, as_tuple
from metaopt_core.spec.distribution import Asked, DistributionSpec, HeldOut, Targets
from metaopt_core.spec.paths import WrittenPath, expanded

FILE_KINDS = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")
VARIABLE = "METAOPT_DATA"
SPLITS = ("train", "validation", "test")

Columns = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(as_tuple)]


def _said(expected: str) -> WrapValidator:
    """One message for a value that none of several types takes, where pydantic has one for each type."""

    def validate(value: Any, validated: ValidatorFunctionWrapHandler) -> Any:
        try:
            return validated(value)
        except ValidationError:
            raise PydanticCustomError("table", "expected {text}", {"text": expected}) from None

    return WrapValidator(validate)


FromFile = dict[Literal["from"], Literal["filename"]]
"""A task for each file, named like the file."""


class Features(Spec):
    """Which columns a network sees."""

    numeric: Annotated[Literal["auto"] | Columns, _said("auto, or a list of columns")] = Field(
        "auto", description="Columns of numbers; `auto` means all numeric columns that have no other role."
    )
    categorical: Annotated[Literal["auto"] | Columns, _said("auto, or a list of columns")] = Field(
        "auto",
        description="Columns of categories, one-hot encoded; `auto` means all text columns without another role that have at most "
        "50 values in the meta-train tasks.",
    )
    drop: Columns = Field((), description="Columns that are no features, whatever they hold.")


Part = Annotated[Share | WrittenPath, _said("a share from 0 to 1, or a file with the names of tasks")]


class Split(Spec):
    """Which tasks are for what: shares of them, files of their names, or a column that says it."""

    train: Part = Field(
        0.7,
        description="Meta-train tasks: their share of the tasks (or groups), chosen by a hash of the name, so that new tasks move "
        "no other one; or a text file with their names, one a line. Tasks that no file names are left out.",
    )
    validation: Part = Field(0.15, description="Meta-validation tasks, likewise.")
    test: Part = Field(0.15, description="Meta-test tasks, likewise.")
    column: str | None = Field(
        None, min_length=1, description="A column that holds train, validation or test, the same in all rows of a task."
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        parts = [getattr(self, split) for split in SPLITS]
        if self.column is not None:
            if parts != [type(self).model_fields[split].default for split in SPLITS]:
                raise PydanticCustomError("split", "expected a column, or shares or files for train, validation and test")
        elif not (all(isinstance(part, str) for part in parts) or not any(isinstance(part, str) for part in parts)):
            raise PydanticCustomError("split", "expected three shares, or three files")
        elif not self.files and abs(sum(parts) - 1) > 1e-9:
            raise PydanticCustomError("split", "expected shares that add up to 1")
        return self

    @property
    def files(self) -> dict[str, str]:
        """Split → the file of its tasks; empty where a column or shares say it."""
        return {split: part for split in SPLITS if isinstance(part := getattr(self, split), str)}


class Missing(Spec):
    """What becomes of missing values of features. Rows without a target are always left out, and counted."""

    numeric: Literal["median", "mean", "zero"] = Field("median", description="What stands for a missing number.")
    categorical: Literal["own_category", "zero"] = Field(
        "own_category", description="Whether a missing category is a category of its own, or none."
    )
    indicator: bool = Field(
        True, description="Whether a numeric column with missing values gets a second one that says where they are missing."
    )


class Scale(Spec):
    """The units in which a network sees numbers."""

    x: Literal["train", "none"] = Field(
        "train", description="`train`: numeric features less their mean and by their standard deviation in the meta-train tasks."
    )
    y: Literal["train", "support", "none"] = Field(
        "support",
        description="`train`: targets likewise; `support`: also less the mean of a task's support set, shrunk towards the "
        "meta-train tasks' mean by how much tasks differ. Results are in the targets' own units in any case.",
    )


class TableSettings(DistributionSpec):
    """What `generate:` may say of a table."""

    noun = "tables of numbers"
    libraries = ("pandas", "pyarrow", "fsspec", "sqlalchemy")
    not_identity = frozenset({"path", "url", "obtain"})
    not_shown = frozenset({"distribution", "held_out", "seed", "obtain"})
    resamples = True
    judged_by = ("r2", "accuracy", "rmse", "mae", "loss", "calibration_error")
    usual_baselines = (
        *("pretrained", "pretrained_ridge", "pretrained_logistic", "protonet"),
        *("support_mean", "majority", "pooled_ridge", "pooled_ridge_offset", "pooled_logistic"),
        *("pooled_boosting", "pooled_boosting_offset", "mixed_model", "mixed_model_gp", "ridge_alone", "logistic_alone"),
        *("nearest_neighbours", "random_forest", "gp_alone", "gp_shared", "boosting_on_support"),
    )

    path: WrittenPath | None = Field(
        None,
        description="CSV (also .csv.gz and .tsv) or Parquet file; a pattern such as `plates/*.csv` for several; or an address that "
        "fsspec knows, as in s3://bucket/data.parquet. A relative path that isn't beside the pipelines file is looked for in the "
        "folders that the environment variable METAOPT_DATA names.",
    )
    url: str | None = Field(
        None,
        min_length=1,
        description="Database, as SQLAlchemy writes it and without a password, which belongs into the driver's own file or "
        "environment variable, as in postgresql://me@host/lab.",
    )
    query: str | None = Field(None, min_length=1, description="What to read from the database: an SQL query.")
    obtain: str | None = Field(
        None, min_length=1, description="How to get the file, which the error says where it isn't there: a command, say."
    )
    task: Annotated[str | Columns | FromFile, _said("a column, a list of columns, or {from: filename}")] = Field(
        description="Column, or columns, whose value says to which task a row belongs; or {from: filename}."
    )
    target: Annotated[str | Columns, _said("a column, or a list of columns")] = Field(
        description="Column to predict; several for a regression of several numbers."
    )
    problem: Literal["regression", "classification"] = Field("regression", description="Whether targets are numbers or classes.")
    labels: Literal["shared", "per_task"] = Field(
        "shared",
        description="Classification: `shared` labels mean the same in every task, as active and inactive do, and a task has all of "
        "them; those `per_task` mean something within their task alone, which has any `ways` of its classes.",
    )
    features: Features = Field(Features(), description="Which columns a network sees.")
    group: str | None = Field(
        None, min_length=1, description="Column of groups of related tasks: those of a group stay in one split."
    )
    time: str | None = Field(
        None, min_length=1, description="Column by which a task's rows are ordered: support rows come before query rows, as in use."
    )
    entity: str | None = Field(
        None, min_length=1, description="Column of things, such as patients; those that are in two splits are counted as a warning."
    )
    split: Split = Field(Split(), description="Which tasks are for what.")
    missing: Missing = Field(Missing(), description="What becomes of missing values.")
    scale: Scale = Field(Scale(), description="The units in which a network sees numbers.")
    weight: Literal["tasks", "rows"] = Field(
        "tasks", description="Whether training draws every task as often, or those with more rows more often."
    )
    small_tasks: Literal["drop", "error"] = Field(
        "drop", description="What becomes of tasks with too few rows for the shots and queries that are asked for; drop lists them."
    )

    @property
    def targets(self) -> Targets:
        return "real" if self.problem == "regression" else "classes"

    @property
    def task_columns(self) -> tuple[str, ...]:
        """The columns that name a task; none where the file's name does."""
        if isinstance(self.task, dict):
            return ()
        return (self.task,) if isinstance(self.task, str) else self.task

    @property
    def target_columns(self) -> tuple[str, ...]:
        return (self.target,) if isinstance(self.target, str) else self.target

    @property
    def with_roles(self) -> dict[str, str]:
        """Column → the key that gives it a role other than that of a feature."""
        roles = dict.fromkeys(self.target_columns, "generate.target")
        roles |= dict.fromkeys(self.task_columns, "generate.task")
        roles |= {name: f"generate.{key}" for key in ("group", "time", "entity") if (name := getattr(self, key)) is not None}
        return roles | ({} if self.split.column is None else {self.split.column: "generate.split.column"})

    def identity(self) -> dict[str, Any]:
        return super().identity() | ({"split": "files"} if self.split.files else {})

    def beside(self, folder: Path) -> Self:
        changes: dict[str, Any] = {}
        if self.path is not None and "://" not in self.path:
            changes["path"] = str(folder / expanded(self.path))
        if self.split.files:
            changes["split"] = Split(**{split: str(folder / expanded(path)) for split, path in self.split.files.items()})
        return self.model_copy(update=changes) if changes else self

    def impossibilities(self, asked: Asked) -> Iterator[Impossibility]:
        del asked  # how many rows a task has is known when they are read
        if self.path is None and self.url is None:
            yield ("generate", "path"), "missing, expected a CSV or Parquet file, or url and query of a database"
        if self.path is not None and self.url is not None:
            yield ("generate", "url"), "path is given, too: expected one of them"
        if (self.url is None) != (self.query is None):
            key, other = ("query", "url") if self.query is None else ("url", "query")
            yield ("generate", key), f"missing, and {other} is given: a database needs both"
        if self.url is not None and (wrong := problem(self.url)):
            yield ("generate", "url"), wrong
        if self.path is not None and not self.path.lower().endswith(FILE_KINDS):
            yield ("generate", "path"), f"an unknown type of file: expected {', '.join(FILE_KINDS[:-1])} or {FILE_KINDS[-1]}"
        if isinstance(self.task, dict) and self.path is None:
            yield ("generate", "task"), "a database has no file names: expected a column"
        if self.problem == "classification" and len(self.target_columns) > 1:
            yield ("generate", "target"), f"{len(self.target_columns)} columns, but classification has one: expected one"
        if self.problem == "regression" and self.labels != "shared":
            yield ("generate", "labels"), "a regression has no labels: remove it, or expected problem: classification"
        if self.held_out != HeldOut():
            yield ("generate", "held_out"), "a table has the tasks that it has: remove it, and say in split which are held out"
        yield from self._impossible_columns()

    def _impossible_columns(self) -> Iterator[Impossibility]:
        for key, columns in (("task", self.task_columns), ("target", self.target_columns)):
            if len(set(columns)) != len(columns) or not (columns or (key == "task" and self.task)):
                yield ("generate", key), "expected one or more columns, each once"
        for column in self.target_columns:
            if column in self.task_columns:
                yield ("generate", "target"), f"{column} is the task, too: expected another column"
        features: dict[str, str] = {}
        for key in ("numeric", "categorical", "drop"):
            listed = getattr(self.features, key)
            for column in () if listed == "auto" else listed:
                if column in features:
                    yield ("generate", "features", key), f"{column} is listed under {features[column]}, too: expected it once"
                features[column] = key
                if column in self.target_columns and key != "drop":
                    yield ("generate", "features", key), f"{column} is the target, which no feature may tell: remove it"
