"""Where a table's rows come from: CSV and Parquet files, patterns of them, addresses that fsspec knows, or a database.

Whatever the source, rows are read as record batches of a few thousand, in the order of the files, with columns of numbers, text
or times. What can be wrong with a source is found here, and named by file and line.
"""

import gzip
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from metaopt_core.distributions.table.files import Place, opened, places, readable
from metaopt_core.distributions.table.settings import TableSettings
from metaopt_core.errors import UserError
from metaopt_core.spec.addresses import scrubbed

Kind = Literal["number", "text", "time"]
_ARROW: Mapping[Kind, pa.DataType] = {"number": pa.float64(), "text": pa.string(), "time": pa.float64()}
_BLOCK = 1 << 22  # bytes of a CSV file that are parsed together
_ROWS = 1 << 16  # of other sources that are read together
_NUMBER = r"^\s*([+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(?i:inf|infinity|nan))?\s*$"


@dataclass(frozen=True)
class Batch:
    """Some rows. file: where they are; first: the number of the first of them there; columns: by name."""

    file: Place
    first: int
    columns: Mapping[str, pa.Array]

    @property
    def rows(self) -> int:
        return len(next(iter(self.columns.values())))


# --- reading -----------------------------------------------------------------------------------------------------------


def columns(spec: TableSettings) -> dict[str, Kind | None]:
    """Column → what it holds, in the table's order; none for what is neither number, text nor time. Raises UserError.

    All files have to have the same columns. Text that should be numbers is for `read` to find.
    """
    found: dict[str, Kind | None] | None = None
    first = ""
    for place in places(spec):
        here = _columns_of(spec, place)
        if found is None:
            found, first = here, place.name
        elif missing := [name for name in found if name not in here]:
            raise UserError(
                f"{place.name}: there is no column {missing[0]}, which {first} has: expected the same columns in all files"
            )
    assert found is not None
    return found


def _columns_of(spec: TableSettings, place: Place) -> dict[str, Kind | None]:
    if spec.path is None:
        batch = next(_from_database(spec, None), None)
        if batch is None:
            raise UserError("generate.query: the database gives no row: expected some")
        return {name: _kind(array.type) for name, array in batch.columns.items()}
    if not place.header:
        with _parquet(place) as file:
            schema = file.schema_arrow
        names, types = schema.names, schema.types
    else:
        with _csv(place, {}) as reader:
            names, types = reader.schema.names, reader.schema.types
    if twice := [name for index, name in enumerate(names) if name in names[:index]]:
        raise UserError(f"{place.name}: the column {twice[0]} is there twice: expected every name once")
    return dict(zip(names, map(_kind, types), strict=True))


def _kind(arrow: pa.DataType) -> Kind | None:
    types = pa.types
    if types.is_dictionary(arrow):
        arrow = arrow.value_type
    if (
        types.is_integer(arrow)
        or types.is_floating(arrow)
        or types.is_decimal(arrow)
        or types.is_boolean(arrow)
        or types.is_null(arrow)
    ):
        return "number"
    if types.is_string(arrow) or types.is_large_string(arrow):
        return "text"
    return "time" if types.is_timestamp(arrow) or types.is_date(arrow) else None


def require(names: Mapping[str, str], there: Sequence[str], file: str) -> None:
    """Raise UserError for a column that isn't there. names: column → the key that names it."""
    for name, key in names.items():
        if name not in there:
            close = get_close_matches(name, there, n=1) or get_close_matches(name.lower(), [one.lower() for one in there], n=1)
            meant = next((one for one in there if close and one.lower() == close[0].lower()), None)
            expected = (
                f"did you mean {meant}?" if meant else f"expected one of {', '.join(there[:20])}{' …' if len(there) > 20 else ''}"
            )
            raise UserError(f"{key}: {file} has no column {name}, {expected}")


def read(spec: TableSettings, wanted: Mapping[str, Kind]) -> Iterator[Batch]:
    """All rows, some at a time, with the wanted columns as what they are wanted as: numbers and times as float64, text as strings.

    A time is a number, or a date or time as seconds. Raises UserError for rows that can't be read as that.
    """
    if spec.path is None:
        yield from _from_database(spec, wanted)
        return
    for place in places(spec):
        yield from (_from_csv if place.header else _from_parquet)(place, wanted)


def _from_parquet(place: Place, wanted: Mapping[str, Kind]) -> Iterator[Batch]:
    with _parquet(place) as file:
        first = 0
        for batch in file.iter_batches(_ROWS, columns=list(wanted), use_threads=True):
            found = {name: converted(batch.column(name), kind, name, place, first) for name, kind in wanted.items()}
            yield Batch(place, first, found)
            first += batch.num_rows


@contextmanager
def _parquet(place: Place) -> Iterator[pyarrow.parquet.ParquetFile]:
    with readable(place.path), opened(place.path) as raw:
        try:
            with pyarrow.parquet.ParquetFile(raw) as file:
                yield file
        except (pa.ArrowInvalid, OSError) as error:
            raise UserError(
                f"{place.name}: not a whole Parquet file ({str(error).splitlines()[0]}): it may be cut short; copy or make it again"
            ) from None


def _from_csv(place: Place, wanted: Mapping[str, Kind]) -> Iterator[Batch]:
    types = {name: _ARROW[kind] for name, kind in wanted.items() if kind != "time"}
    skipped: list[pa.csv.InvalidRow] = []
    first = 0
    try:
        with _csv(place, types, list(wanted), skipped) as reader:
            for batch in reader:
                if skipped:
                    break
                found = {name: converted(batch.column(name), kind, name, place, first) for name, kind in wanted.items()}
                yield Batch(place, first, found)
                first += batch.num_rows
    except pa.ArrowInvalid as error:
        for name, kind in wanted.items():
            if kind == "number":
                _refuse_text(place, name)
        raise UserError(f"{place.name}: can't be read as CSV ({str(error).splitlines()[0]}): correct that place") from None
    if skipped:
        one, numbers = skipped[0], [row.number - 2 for row in skipped]
        raise UserError(
            f"{place.name}: {place.rows(numbers)}: {one.actual_columns} values, but the header has "
            f"{one.expected_columns} columns: expected as many; quote a value that holds the separator"
        )


@contextmanager
def _csv(
    place: Place, types: Mapping[str, pa.DataType], wanted: Sequence[str] | None = None, skipped: list[Any] | None = None
) -> Iterator[Any]:
    """A reader of a CSV file, whose columns get types by what the first block holds. skipped: gets the rows of other lengths."""

    def note(row: Any) -> str:
        if row.text.strip() and skipped is not None and len(skipped) < 1000:
            skipped.append(row)
        return "skip"

    with _readable_csv(place):
        with opened(place.path) as raw, _decompressed(raw, place) as start:
            header = start.read(_BLOCK).partition(b"\n")[0].decode("utf-8", "replace")
        if not header.strip():
            raise UserError(f"{place.name}: the file is empty, or its first line is: expected a line with the names of the columns")
        separator = max(",;\t|", key=header.count)
        with opened(place.path) as raw, _decompressed(raw, place) as stream:
            yield pa.csv.open_csv(
                stream,
                pa.csv.ReadOptions(use_threads=False, block_size=_BLOCK),
                pa.csv.ParseOptions(
                    delimiter=separator, newlines_in_values=True, ignore_empty_lines=False, invalid_row_handler=note
                ),
                pa.csv.ConvertOptions(column_types=types, include_columns=wanted, strings_can_be_null=True),
            )


def _decompressed(raw: IO[bytes], place: Place) -> Any:
    return gzip.GzipFile(fileobj=raw) if place.path.lower().endswith(".gz") else pa.PythonFile(raw, "r")


@contextmanager
def _readable_csv(place: Place) -> Iterator[None]:
    try:
        with readable(place.path) if "://" in place.path else _local(place):
            yield
    except (EOFError, OSError) as error:
        raise UserError(f"{place.name}: can't be unpacked ({error}): it may be cut short; copy or make it again") from None


@contextmanager
def _local(place: Place) -> Iterator[None]:
    if not Path(place.path).is_file():
        raise UserError(f"{place.name}: there is no such file")
    yield


def converted(array: pa.Array, kind: Kind, name: str, place: Place, first: int) -> pa.Array:
    """A column as numbers, text or times. Raises UserError, naming rows."""
    arrow = array.type
    if pa.types.is_dictionary(arrow):
        array, arrow = array.dictionary_decode(), arrow.value_type
    if kind == "text":
        return array if pa.types.is_string(arrow) else array.cast(pa.string())
    if kind == "time" and (pa.types.is_date(arrow) or pa.types.is_timestamp(arrow)):
        return pc.cast(pc.cast(pc.cast(array, pa.timestamp("us")), pa.int64()), pa.float64())
    if pa.types.is_null(arrow):
        return pa.nulls(len(array), pa.float64())
    if pa.types.is_string(arrow) or pa.types.is_large_string(arrow):
        text = pc.match_substring_regex(pc.fill_null(array, ""), _NUMBER)
        if not pc.all(text).as_py():
            bad = np.flatnonzero(~np.asarray(text))
            raise not_numbers(name, place, [first + int(row) for row in bad], array[int(bad[0])].as_py(), kind)
        array = pc.utf8_trim_whitespace(array)
        array = pc.if_else(pc.equal(array, ""), None, array)
    try:
        return array.cast(pa.float64())
    except pa.ArrowInvalid:
        return array.cast(pa.float64(), safe=False)


def not_numbers(name: str, place: Place, rows: Sequence[int], example: str, kind: Kind = "number") -> UserError:
    expected = (
        "numbers, dates or times as in 2026-03-01"
        if kind == "time"
        else "numbers; a column of categories belongs in features.categorical"
    )
    return UserError(f"{place.name}: {place.rows(rows)}: {name} is {example!r}: expected {expected}")


def _refuse_text(place: Place, name: str) -> None:
    """Raise UserError where a column of a CSV file isn't numeric, naming its lines."""
    first, example = 0, ""
    bad: list[int] = []
    with _csv(place, {name: pa.string()}, [name]) as reader:
        for batch in reader:
            column = pc.fill_null(batch.column(0), "")
            wrong = np.flatnonzero(~np.asarray(pc.match_substring_regex(column, _NUMBER)))
            if len(wrong) and not bad:
                example = column[int(wrong[0])].as_py()
            bad += [first + int(row) for row in wrong]
            first += batch.num_rows
    if bad:
        raise not_numbers(name, place, bad, example)


def _from_database(spec: TableSettings, wanted: Mapping[str, Kind] | None) -> Iterator[Batch]:
    """The rows of a query; without `wanted`, all columns as they come."""
    import sqlalchemy

    place, first = Place("generate.query", "", ""), 0
    assert spec.url is not None
    assert spec.query is not None
    try:
        engine = sqlalchemy.create_engine(spec.url)
        with engine.connect().execution_options(stream_results=True) as connection:
            result = connection.execute(sqlalchemy.text(spec.query))
            names = list(result.keys())
            while rows := result.fetchmany(_ROWS):
                arrays = dict(zip(names, map(_array, zip(*rows, strict=True)), strict=True))
                if wanted is not None:
                    arrays = {name: converted(arrays[name], kind, name, place, first) for name, kind in wanted.items()}
                yield Batch(place, first, arrays)
                first += len(rows)
    except (sqlalchemy.exc.SQLAlchemyError, ImportError) as error:
        why = scrubbed(str(getattr(error, "orig", None) or error).strip().splitlines()[0])
        raise UserError(
            f"generate.url: the database doesn't answer, or refuses the query ({why}): expected one that can be reached from here; "
            "check generate.url, generate.query and the credentials of its driver"
        ) from None


def database_digest(spec: TableSettings) -> str:
    """Of all values that the query gives."""
    found = hashlib.sha256()
    for batch in _from_database(spec, None):
        found.update(str([array.to_pylist() for array in batch.columns.values()]).encode())
    return found.hexdigest()


def _array(values: Sequence[Any]) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):  # of several types
        return pa.array([None if value is None else str(value) for value in values])
