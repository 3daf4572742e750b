"""Parquet: numbers, lists of them of one length in arrow's every nesting, and text in its every spelling."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mlx_lvm.data.tables.base import Array, ArrayFile, reading
from mlx_lvm.errors import InvalidFile, needing

LEAST_WIDE = 8  # columns that are taken for the numbers of a vector


def open_parquet(path: Path) -> ArrayFile:
    with needing("parquet", f"{path}: reading parquet needs pyarrow"):
        import pyarrow as pa
        import pyarrow.parquet as pq
    with _arrow(path, pa.ArrowException):
        table = pq.ParquetFile(path)
        schema, count = table.schema_arrow, table.metadata.num_rows
    arrays: dict[str, Array] = {}
    unread: dict[str, str] = {}
    for column in schema:
        if column.name in arrays:
            raise InvalidFile(f"{path}: two columns named '{column.name}'")
        levels, inner = _levels(column.type)
        if pa.types.is_floating(inner) or pa.types.is_integer(inner):
            dtype = np.dtype(inner.to_pandas_dtype())
        elif not levels and _is_text(inner):
            dtype = np.dtype(object)
        else:
            unread[column.name] = f"{column.type} is neither numbers nor text"
            continue
        arrays[column.name] = _column(path, column.name, levels, dtype, count)
    if wide := _numbered(arrays):
        arrays = {"vectors": _side_by_side(path, wide, count)} | {
            name: array for name, array in arrays.items() if name not in wide
        }
    return ArrayFile(path, arrays, unread)


def _column(path: Path, name: str, levels: int, dtype: np.dtype, count: int) -> Array:
    def blocks(rows: int) -> Iterator[np.ndarray]:
        start, sides = 0, None
        for (block,) in _batches(path, [name], dtype, rows):
            sides = sides or block.shape[1:]
            if block.shape[1:] != sides:
                raise InvalidFile(
                    f"{path}, column '{name}', row {start}: {list(block.shape[1:])} numbers, {list(sides)} "
                    "in the rows before"
                )
            yield block
            start += len(block)

    def measure() -> tuple[int, ...]:
        return (count, *next(blocks(1)).shape[1:]) if levels and count else (count,)

    return Array(name, 1 + levels, dtype, measure, blocks)


def _numbered(arrays: dict[str, Array]) -> list[str]:
    """Columns that are one number each of a vector, in order: of one name but for a number, which counts from
    0 or 1 without a gap. Empty where there is no such set, or several, or a column of lists of numbers.
    """
    found: dict[str, dict[int, str]] = {}
    for name, array in arrays.items():
        if array.rank > 1 and array.dtype.kind == "f":
            return []
        parts = re.fullmatch(r"(.*?)0*(\d+)", name)
        if parts and array.rank == 1 and array.dtype.kind == "f":
            found.setdefault(parts[1], {})[int(parts[2])] = name
    counted = [
        [columns[k] for k in sorted(columns)]
        for columns in found.values()
        if len(columns) >= LEAST_WIDE
        and sorted(columns) in (list(range(len(columns))), list(range(1, len(columns) + 1)))
    ]
    return counted[0] if len(counted) == 1 else []


def _side_by_side(path: Path, columns: list[str], count: int) -> Array:
    """The columns as one array of vectors [count, columns]."""
    kind = np.dtype(np.float32)

    def blocks(rows: int) -> Iterator[np.ndarray]:
        return (np.stack(values, axis=1) for values in _batches(path, columns, kind, rows))

    return Array.known("vectors", (count, len(columns)), kind, blocks)


def _batches(path: Path, columns: list[str], dtype: np.dtype, rows: int) -> Iterator[list[np.ndarray]]:
    """The values of columns, batch by batch."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    start = 0
    with reading(path), _arrow(path, pa.ArrowException):
        for batch in pq.ParquetFile(path).iter_batches(batch_size=rows, columns=columns):
            named = dict(zip(batch.schema.names, batch.columns, strict=True))
            yield [_values(named[name], dtype, f"{path}, column '{name}'", start) for name in columns]
            start += batch.num_rows


@contextmanager
def _arrow(path: Path, kind: type[Exception]) -> Iterator[None]:
    try:
        yield
    except (kind, IndexError) as error:  # IndexError: a column chunk that a damaged footer points to
        raise InvalidFile(f"{path}: not a parquet file, or damaged ({str(error).strip()[:200]})") from None


def _levels(kind: Any) -> tuple[int, Any]:
    """(how many sides a value has besides its row, the type of what it holds)."""
    import pyarrow as pa

    if isinstance(kind, pa.FixedShapeTensorType):
        return len(kind.shape), kind.value_type
    if isinstance(kind, pa.BaseExtensionType):
        return _levels(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return 0, kind.value_type
    if _is_list(kind):
        levels, inner = _levels(kind.value_type)
        return levels + 1, inner
    return 0, kind


def _is_list(kind: Any) -> bool:
    return _is_any(kind, "list", "large_list", "fixed_size_list", "list_view", "large_list_view")


def _is_text(kind: Any) -> bool:
    """What can name a document: text, bytes, and what has a text of its own, as dates and decimals."""
    return _is_any(kind, "string", "large_string", "string_view", "binary", "large_binary", "binary_view",
                   "fixed_size_binary", "decimal", "temporal")  # fmt: skip


def _is_any(kind: Any, *names: str) -> bool:
    """Whether a type is one of those named; not every version of pyarrow has all of them."""
    import pyarrow as pa

    return any(getattr(pa.types, f"is_{name}", lambda kind: False)(kind) for name in names)


def _values(values: Any, dtype: np.dtype, what: str, start: int) -> np.ndarray:
    """One batch of a column: numbers [n, ...], or objects [n] of text or what else names a document."""
    import pyarrow as pa

    if values.null_count:
        raise InvalidFile(f"{what}, row {start + _first_null(values)}: no value")
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if dtype.hasobject:
        return np.array([*values.to_pylist(), None], dtype=object)[:-1]  # None: NumPy looks into no text
    rows = len(values)
    sides: list[int] = []
    while True:
        if isinstance(values.type, pa.FixedShapeTensorType):
            if values.type.permutation not in (None, list(range(len(values.type.shape)))):
                raise InvalidFile(f"{what}: a tensor of permuted axes; store it in the order of its shape")
            sides += values.type.shape
            values = values.storage.flatten()
            break
        if isinstance(values.type, pa.BaseExtensionType):
            values = values.storage
        elif _is_list(values.type):
            sides.append(_one_length(values, what, start, sides))
            values = values.flatten()
        else:
            break
    if values.null_count:
        place = _first_null(values) // max(1, len(values) // rows)
        raise InvalidFile(f"{what}, row {start + place}: a missing number")
    return np.asarray(values).astype(dtype, copy=False).reshape(rows, *sides)


def _first_null(values: Any) -> int:
    return int(np.flatnonzero(np.asarray(values.is_null()))[0])


def _one_length(values: Any, what: str, start: int, sides: list[int]) -> int:
    """The length that every list has. Raises InvalidFile naming the row of one that is missing or differs."""
    per_row = max(1, int(np.prod(sides)))
    if values.null_count:
        raise InvalidFile(f"{what}, row {start + _first_null(values) // per_row}: no value")
    if not len(values):
        return 0
    if hasattr(values, "value_lengths"):
        lengths = np.asarray(values.value_lengths())
    elif hasattr(values, "sizes"):
        lengths = np.asarray(values.sizes)
    else:
        lengths = np.full(len(values), values.type.list_size)
    odd = np.flatnonzero(lengths != lengths[0])
    if len(odd):
        row = start + int(odd[0]) // per_row
        raise InvalidFile(f"{what}, row {row}: {lengths[odd[0]]} numbers, {lengths[0]} in the rows before")
    return int(lengths[0])
