"""Arrays in other people's files, read in blocks of rows: `.npz`, `.npy`, safetensors, parquet.

Nothing is unpickled, and nothing is allocated on a file's word alone: what a header declares is held against the bytes
that are there. An array is opened anew for each pass, so one pass needs memory for one block only.
"""

from __future__ import annotations

import ast
import io
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from mlx_lvm.core.safetensors import DTYPES, open_safetensors
from mlx_lvm.errors import InvalidFile, IOFailed, SetupInvalid

MAX_HEADER = 64 << 10  # bytes of the header of one .npy
MAX_ARRAY = 1 << 42  # declared bytes of one array
MAX_SMALL = 1 << 30  # bytes of an array that is read whole: ids, offsets, names
MAX_MEMBERS = 10_000
RATIO, RATIO_FROM = 100, 256 << 20  # vectors do not pack a hundredfold; ids do, but they are small
ENCRYPTED = 1  # bit of a member's flags
LOCAL_HEADER = struct.Struct(
    "<4s5H3I2H"
)  # ends with the lengths of name and extra field, which lie before the data
PLAIN = re.compile(r"[<>|=]?([fiu][1248]|b1|[SU]\d{1,9})")


@dataclass(frozen=True)
class Array:
    """An array that is read in blocks: `blocks(rows)` begins at the first row each time it is called. A block holds its
    values until the next one is asked for.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    blocks: Callable[[int], Iterator[np.ndarray]]
    bfloat16: bool = False  # dtype is the uint16 of its bits then

    def whole(self) -> np.ndarray:
        """All of it. Raises InvalidFile where it is too large for what is read whole."""
        if int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize > MAX_SMALL:
            raise InvalidFile(f"array '{self.name}' {list(self.shape)} is larger than {MAX_SMALL:,} bytes")
        parts = list(self.blocks(max(1, self.shape[0] if self.shape else 1)))
        return np.concatenate(parts) if parts else np.zeros(self.shape, self.dtype)


@dataclass(frozen=True)
class ArrayFile:
    """The arrays of a file by name, and what was left out with the reason."""

    path: Path
    arrays: dict[str, Array]
    left_out: list[str]


def open_arrays(path: str | Path) -> ArrayFile:
    """By its ending: .npz, .npy, .safetensors, .parquet. Raises InvalidFile, IOFailed, or SetupInvalid without pyarrow."""
    path = Path(path)
    readers = {
        ".npz": _npz,
        ".npy": _npy,
        ".safetensors": _safetensors,
        ".parquet": _parquet,
        ".pq": _parquet,
    }
    if path.suffix.lower() not in readers:
        raise InvalidFile(f"{path}: ending '{path.suffix}' is not one of {', '.join(readers)}")
    if not path.is_file():
        raise InvalidFile(f"{path}: {'no regular file' if path.exists() else 'no such file'}")
    with _reading(path):
        return readers[path.suffix.lower()](path)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turns what readers of damaged files raise into InvalidFile, and the system's refusals into IOFailed."""
    try:
        yield
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        RuntimeError,
        UnicodeDecodeError,
    ) as error:
        raise InvalidFile(
            f"{path}: damaged, cut off, encrypted or packed in a way not known here ({error})"
        ) from None
    except OSError as error:
        if error.errno is None:  # pyarrow's word for a damaged file
            raise InvalidFile(
                f"{path}: damaged, or not what its ending says ({str(error).strip()[:200]})"
            ) from None
        raise IOFailed(f"{path}: cannot be read ({error.strerror or error})") from error


def _npz(path: Path) -> ArrayFile:
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if len(members) > MAX_MEMBERS:
            raise InvalidFile(f"{path}: {len(members):,} members; an .npz of vectors has a few")
        if sum(member.compress_size for member in members) > size:
            raise InvalidFile(
                f"{path}: its members say they are larger than the file: overlapping, a zip bomb"
            )
        names = [member.filename for member in members]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InvalidFile(f"{path}: members of one name: {', '.join(twice[:5])}")
        arrays: dict[str, Array] = {}
        left_out = []
        for member in members:
            name = member.filename.removesuffix(".npy")
            if name == member.filename:
                left_out.append(f"{name}: not an array")
                continue
            if member.file_size > RATIO_FROM and member.file_size > RATIO * max(1, member.compress_size):
                raise InvalidFile(
                    f"{path}: array '{name}' unpacks {member.compress_size:,} bytes to {member.file_size:,}: a zip bomb"
                )
            with archive.open(member) as file:
                header = _npy_header(file, member.file_size, f"{path}, array '{name}'")
            if isinstance(header, str):
                left_out.append(f"{name}: {header}")
                continue
            shape, dtype, start = header

            def blocks(
                rows: int,
                member: zipfile.ZipInfo = member,
                shape: Any = shape,
                dtype: Any = dtype,
                start: int = start,
            ) -> Any:
                with _reading(path), _member(path, member) as file:
                    file.read(start)
                    yield from _read_rows(file, shape, dtype, rows, f"{path}, array '{member.filename}'")

            arrays[name] = Array(name, shape, dtype, blocks)
    return ArrayFile(path, arrays, left_out)


@contextmanager
def _member(path: Path, member: zipfile.ZipInfo) -> Iterator[IO[bytes]]:
    """The bytes of a member. One that is not packed is read from the file itself: zipfile copies everything twice."""
    with open(path, "rb", buffering=0) as file:
        head = b""
        if member.compress_type == zipfile.ZIP_STORED and not member.flag_bits & ENCRYPTED:
            file.seek(member.header_offset)
            head = file.read(LOCAL_HEADER.size)
        if len(head) == LOCAL_HEADER.size and head[:4] == b"PK\x03\x04":
            *_, name, extra = LOCAL_HEADER.unpack(head)
            file.seek(name + extra, 1)
            yield cast(IO[bytes], _Plain(file, member))
            return
    with zipfile.ZipFile(path) as archive, archive.open(member) as packed:
        yield packed


class _Plain:
    """The member that begins where the file stands, held against its checksum at its end as zipfile does."""

    def __init__(self, file: io.FileIO, member: zipfile.ZipInfo) -> None:
        self.file, self.left, self.crc, self.expected = file, member.file_size, 0, member.CRC

    def readinto(self, into: memoryview) -> int:
        got = self.file.readinto(into[: self.left]) or 0
        self.crc, self.left = zlib.crc32(into[:got], self.crc), self.left - got
        if not self.left and self.crc != self.expected:
            raise zipfile.BadZipFile("its checksum is not the recorded one")
        return got

    def read(self, count: int) -> bytes:
        data = bytearray(min(count, self.left))
        return bytes(data[: self.readinto(memoryview(data))])


def _npy(path: Path) -> ArrayFile:
    with open(path, "rb") as file:
        header = _npy_header(file, path.stat().st_size, str(path))
    if isinstance(header, str):
        raise InvalidFile(f"{path}: {header}")
    shape, dtype, start = header

    def blocks(rows: int) -> Iterator[np.ndarray]:
        with _reading(path), open(path, "rb") as file:
            file.seek(start)
            yield from _read_rows(file, shape, dtype, rows, str(path))

    return ArrayFile(path, {"vectors": Array("vectors", shape, dtype, blocks)}, [])


def _npy_header(file: IO[bytes], size: int, what: str) -> tuple[tuple[int, ...], np.dtype, int] | str:
    """(shape, dtype, first byte of the data), or why the array is left out. Raises InvalidFile where it is damaged."""
    first = file.read(8)
    if first[:6] != b"\x93NUMPY" or len(first) < 8:
        raise InvalidFile(f"{what}: not a NumPy array (its first bytes are {first[:6]!r})")
    wide = 2 if first[6] == 1 else 4
    if first[6] not in (1, 2, 3):
        raise InvalidFile(f"{what}: NumPy format {first[6]}.{first[7]}; 1 to 3 are known")
    length = int.from_bytes(file.read(wide), "little")
    if length > MAX_HEADER:
        raise InvalidFile(f"{what}: header of {length:,} bytes, at most {MAX_HEADER:,} expected")
    try:
        values = ast.literal_eval(file.read(length).decode("utf-8").strip())
        descr, order, shape = values["descr"], values["fortran_order"], values["shape"]
        if (
            not isinstance(shape, tuple)
            or not all(isinstance(side, int) and side >= 0 for side in shape)
            or not isinstance(order, bool)
        ):
            raise ValueError("shape must be whole numbers")
    except (ValueError, SyntaxError, KeyError, TypeError, MemoryError, RecursionError) as error:
        raise InvalidFile(f"{what}: damaged header ({type(error).__name__}: {str(error)[:100]})") from None
    if isinstance(descr, str) and "O" in descr:
        return "Python objects, which are pickled and never read"
    if not isinstance(descr, str) or not PLAIN.fullmatch(descr):
        return f"type {descr!r} is not one of numbers or text"
    dtype = np.dtype(descr)
    if order and len(shape) > 1 and sum(side > 1 for side in shape) > 1:
        raise InvalidFile(f"{what}: stored by columns (Fortran order); save it with np.ascontiguousarray")
    start = 8 + wide + length
    needed = dtype.itemsize
    for side in shape:
        needed *= side
    if needed > MAX_ARRAY:
        raise InvalidFile(f"{what}: declares {needed:,} bytes, at most {MAX_ARRAY:,} are read")
    if needed != size - start:
        raise InvalidFile(
            f"{what}: shape {list(shape)} of {dtype.str} needs {needed:,} bytes, {size - start:,} are there: cut off or damaged"
        )
    return shape, dtype, start


def _read_rows(
    file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype, rows: int, what: str
) -> Iterator[np.ndarray]:
    count = shape[0] if shape else 1
    width = dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64))
    whole = np.empty(
        min(rows, count) * width, np.uint8
    )  # filled anew for each block: fresh pages cost as much as the reading
    for start in range(0, count, rows):
        part = min(rows, count - start)
        data = whole[: part * width]
        view, position = data.data, 0
        while position < len(data):
            got = file.readinto(view[position:])  # type: ignore[attr-defined]
            if not got:
                raise InvalidFile(
                    f"{what}: ends at row {start + position // max(1, width):,} of {count:,}: cut off"
                )
            position += got
        yield data.view(dtype).reshape(part, *shape[1:])


def _safetensors(path: Path) -> ArrayFile:
    file = open_safetensors(path)
    arrays = {}
    for name, info in file.tensors.items():
        kind, start = np.dtype(DTYPES[info.dtype][1]), info.start

        def blocks(rows: int, shape: Any = info.shape, kind: Any = kind, start: int = start) -> Any:
            with _reading(path), open(path, "rb") as data:
                data.seek(start)
                yield from _read_rows(data, shape, kind, rows, str(path))

        arrays[name] = Array(name, info.shape, kind, blocks, info.dtype == "BF16")
    return ArrayFile(path, arrays, [])


def _parquet(path: Path) -> ArrayFile:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise SetupInvalid(f"{path}: reading parquet needs pyarrow: pip install 'mlx-lvm[parquet]'") from None
    with _arrow(path, pa.ArrowException):
        table = pq.ParquetFile(path)
        schema, count = table.schema_arrow, table.metadata.num_rows
    arrays: dict[str, Array] = {}
    left_out = []
    for column in schema:
        lists = (
            pa.types.is_list(column.type)
            or pa.types.is_large_list(column.type)
            or pa.types.is_fixed_size_list(column.type)
        )
        inner = column.type.value_type if lists else column.type
        text = pa.types.is_string(inner) or pa.types.is_large_string(inner)
        if not (pa.types.is_floating(inner) or pa.types.is_integer(inner) or (text and not lists)):
            left_out.append(f"{column.name}: {column.type} is neither numbers nor text")
            continue
        dtype = np.dtype(object) if text else np.dtype(inner.to_pandas_dtype())

        def blocks(rows: int, name: str = column.name, lists: bool = lists, dtype: Any = dtype) -> Any:
            start = 0
            with _reading(path), _arrow(path, pa.ArrowException):
                for batch in pq.ParquetFile(path).iter_batches(batch_size=rows, columns=[name]):
                    yield _column(batch.column(0), lists, dtype, f"{path}, column '{name}'", start)
                    start += len(batch)

        shape: tuple[int, ...] = (count,)
        if lists and count:
            shape = (count, next(blocks(1)).shape[1])
        arrays[column.name] = Array(column.name, shape, dtype, blocks)
    return ArrayFile(path, arrays, left_out)


@contextmanager
def _arrow(path: Path, kind: type[Exception]) -> Iterator[None]:
    try:
        yield
    except kind as error:
        raise InvalidFile(f"{path}: not a parquet file, or damaged ({str(error).strip()[:200]})") from None


def _column(values: Any, lists: bool, dtype: np.dtype, what: str, start: int) -> np.ndarray:
    """One batch of a column as an array: numbers [n] or [n, dim], or text."""
    if values.null_count:
        null = int(np.flatnonzero(np.asarray(values.is_null()))[0])
        raise InvalidFile(f"{what}, row {start + null}: no value")
    if not lists:
        return (
            np.array(values.to_pylist(), dtype=object)
            if dtype.hasobject
            else np.asarray(values).astype(dtype)
        )
    flat = values.flatten()
    lengths = np.asarray(
        values.value_lengths() if hasattr(values, "value_lengths") else [values.type.list_size] * len(values)
    )
    if len(lengths) and (lengths != lengths[0]).any():
        odd = int(np.flatnonzero(lengths != lengths[0])[0])
        raise InvalidFile(
            f"{what}, row {start + odd}: {lengths[odd]} numbers, {lengths[0]} in the rows before"
        )
    if flat.null_count:
        raise InvalidFile(f"{what}, rows {start} to {start + len(values)}: a missing number")
    return np.asarray(flat).astype(dtype, copy=False).reshape(len(values), -1)
