"""Safetensors: read strictly, written so that the same tensors give the same bytes.

Both are ours, and the tests hold both against the safetensors package:

- its reader does not tell where a tensor lies in the file, which a corpus that is mapped, or read in blocks,
  must know; MLX's accepts overlaps, holes, duplicate keys and trailing bytes. This one refuses them and
  bounds everything before it allocates.
- its writer orders metadata by a hash drawn anew in each process: equal tensors would give other bytes.
"""

from __future__ import annotations

import json
import math
import stat
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mlx_lvm.core.mlx import mx
from mlx_lvm.core.result import JsonObject
from mlx_lvm.errors import InvalidFile, IOFailed, Problems, reason

MAX_HEADER = 4 << 20  # bytes; a header holds names, shapes and metadata, never data
MAX_PARTS = 100_000  # brackets and commas in a header: they, not its bytes, decide what parsing it allocates
MAX_RANK = 8
MAX_SIDE = 1 << 31  # MLX counts along an axis in 32 bits
MAX_OFFSET = 1 << 62

# name in the file -> (bytes of an element, numpy type its bytes are read as, MLX type)
DTYPES: dict[str, tuple[int, str, mx.Dtype]] = {
    "F64": (8, "<f8", mx.float64),
    "F32": (4, "<f4", mx.float32),
    "F16": (2, "<f2", mx.float16),
    "BF16": (2, "<u2", mx.bfloat16),
    "I64": (8, "<i8", mx.int64),
    "I32": (4, "<i4", mx.int32),
    "I16": (2, "<i2", mx.int16),
    "I8": (1, "<i1", mx.int8),
    "BOOL": (1, "<b1", mx.bool_),
    "U8": (1, "<u1", mx.uint8),
    "U16": (2, "<u2", mx.uint16),
    "U32": (4, "<u4", mx.uint32),
    "U64": (8, "<u8", mx.uint64),
}
NAMES = {dtype: name for name, (_, _, dtype) in DTYPES.items()}


@dataclass(frozen=True)
class TensorInfo:
    dtype: str
    shape: tuple[int, ...]
    start: int  # first byte of its data in the file
    end: int


@dataclass(frozen=True)
class SafeFile:
    """The header of a safetensors file, read and found sound; its tensors are mapped when asked for."""

    path: Path
    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]
    data: np.ndarray | None = field(default=None, repr=False, compare=False)  # its bytes, where read already
    unread: dict[str, str] = field(default_factory=dict)  # tensors of unknown types, where these are allowed

    def numpy(self, name: str) -> np.ndarray:
        """The tensor as a read-only map of the file. BF16 comes as the uint16 of its bits."""
        info = self.tensors[name]
        kind = np.dtype(DTYPES[info.dtype][1])
        if info.start == info.end:
            return np.zeros(info.shape, kind)
        part = self._mapped[info.start : info.end]
        if len(part) != info.end - info.start:
            raise IOFailed(f"{self.path}: was cut off while tensor {_short(name)} is read from it")
        return part.view(kind).reshape(info.shape)

    @cached_property
    def _mapped(self) -> np.ndarray:
        """The file's bytes [n] uint8. One map for all: each holds an open file, of which macOS allows 256."""
        if self.data is not None:
            return self.data
        try:
            return np.memmap(self.path, dtype=np.uint8, mode="r")
        except (OSError, ValueError) as error:
            raise IOFailed(f"{self.path}: cannot be read ({reason(error)})") from error

    def array(self, name: str) -> mx.array:
        """The tensor copied to the device."""
        aligned = np.require(self.numpy(name), requirements=["C", "A"])  # older writers began at any byte
        data = mx.array(aligned).reshape(self.tensors[name].shape)  # NumPy makes a scalar [1]
        return data.view(mx.bfloat16) if self.tensors[name].dtype == "BF16" else data

    def arrays(self) -> dict[str, mx.array]:
        return {name: self.array(name) for name in self.tensors}


def open_safetensors(path: str | Path, lenient: bool = False) -> SafeFile:
    """Raises InvalidFile with every problem of the header, IOFailed where the file cannot be read.

    `lenient` is for other people's files: tensors of unknown types and metadata that is no text are left out.
    """
    path = Path(path)
    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode):
            what = "a folder" if stat.S_ISDIR(state.st_mode) else "no regular file"
            raise InvalidFile(f"{path}: is {what}; expected a .safetensors file")
        size = state.st_size
        with open(path, "rb") as file:
            length = _header_length(path, file.read(8), size)
            raw = file.read(length)
    except FileNotFoundError:
        raise InvalidFile(f"{path}: no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise IOFailed(f"{path}: cannot be read ({reason(error)})") from error
    return _parse_header(path, raw, size, lenient)


def safetensors_from(path: Path, data: np.ndarray) -> SafeFile:
    """The same from the file's bytes [n] uint8, so that what was checked against a digest is what is used."""
    length = _header_length(path, data[:8].tobytes(), len(data))
    return replace(_parse_header(path, data[8 : 8 + length].tobytes(), len(data)), data=data)


def _header_length(path: Path, first: bytes, size: int) -> int:
    if len(first) < 8:
        what = "too short for a safetensors file. Was the download cut off?"
        raise InvalidFile(f"{path}: {size} bytes; {what}")
    (length,) = struct.unpack("<Q", first)
    if not 2 <= length <= min(MAX_HEADER, size - 8):
        raise InvalidFile(
            f"{path}: header of {length:,} bytes in a file of {size:,} (at most {MAX_HEADER:,}); cut off, or "
            "not a safetensors file"
        )
    return length


def _parse_header(path: Path, raw: bytes, size: int, lenient: bool = False) -> SafeFile:
    problems, data_start = Problems(str(path)), 8 + len(raw)

    def unique(pairs: list[tuple[str, Any]]) -> JsonObject:
        made = dict(pairs)
        if len(made) < len(pairs):
            twice = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
            problems.found += [f"duplicate key {_short(key)} in the header" for key in twice]
        return made

    try:
        if raw[:1] != b"{":
            raise ValueError("does not begin with '{'")
        if sum(map(raw.count, (b"[", b"{", b","))) > MAX_PARTS:
            raise ValueError(f"more than {MAX_PARTS:,} brackets and commas")
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        what = f"header is not valid JSON ({error}); not a safetensors file, or damaged"
        raise InvalidFile(f"{path}: {what}") from None
    metadata = header.pop("__metadata__", {})
    if lenient and isinstance(metadata, dict):
        metadata = {key: value for key, value in metadata.items() if isinstance(value, str)}
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        problems.add("metadata must map text to text")
        metadata = {}
    tensors: dict[str, TensorInfo] = {}
    for name, entry in header.items():
        info = _tensor_info(entry, data_start, lenient)
        if isinstance(info, str):
            problems.add(f"tensor {_short(name)}: {info}")
        else:
            tensors[name] = info
    if not problems.found:
        position = data_start
        for name, info in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
            if info.start != position:
                problems.add(
                    f"tensor {_short(name)} starts at byte {info.start}, expected {position}: tensors "
                    "overlap or leave holes"
                )
            position = info.end
        if position != size:
            problems.add(
                f"data ends at byte {position:,} but the file has {size:,}; cut off or with bytes added"
            )
    problems.raise_if_any(InvalidFile)
    known = {name: info for name, info in tensors.items() if info.dtype in DTYPES}
    rest = {name: tensors[name].dtype for name in tensors if name not in known}
    unread = {name: f"{dtype} is not one of {', '.join(DTYPES)}" for name, dtype in rest.items()}
    return SafeFile(path, known, metadata, unread=unread)


def _tensor_info(entry: Any, data_start: int, lenient: bool) -> TensorInfo | str:
    """The entry of one tensor, or what is wrong with it."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        return "entry must have exactly dtype, shape and data_offsets"
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or (dtype not in DTYPES and not lenient):
        return f"dtype {_short(dtype)} is not one of {', '.join(DTYPES)}"
    if not _whole(shape, MAX_SIDE) or len(shape) > MAX_RANK:
        return f"shape {_short(shape)} is not a list of at most {MAX_RANK} whole numbers below 2^31"
    if not _whole(offsets, MAX_OFFSET) or len(offsets) != 2 or offsets[0] > offsets[1]:
        return f"data_offsets {_short(offsets)} are not two increasing whole numbers"
    needed, given = DTYPES[dtype][0] * math.prod(shape) if dtype in DTYPES else None, offsets[1] - offsets[0]
    if needed is not None and needed != given:
        return f"shape {shape} of {dtype} needs {needed:,} bytes, offsets give {given:,}"
    return TensorInfo(dtype, tuple(shape), data_start + offsets[0], data_start + offsets[1])


def _whole(values: Any, limit: int) -> bool:
    return isinstance(values, list) and all(
        isinstance(v, int) and not isinstance(v, bool) and 0 <= v < limit for v in values
    )


def _short(value: Any) -> str:
    """A value out of a file as a message may show it: escaped, and not for pages."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


@dataclass(frozen=True)
class Layout:
    """Where everything lies in a safetensors file: its first bytes (`head`), and tensors after it."""

    head: bytes
    tensors: dict[str, TensorInfo]  # in the order they lie in
    size: int


def layout(entries: Mapping[str, tuple[str, Sequence[int]]], metadata: Mapping[str, str]) -> Layout:
    """The layout of tensors {name: (dtype, shape)}. It depends on names, dtypes, shapes and metadata alone.

    Data starts at a multiple of 8 bytes and wider elements come first, so that every tensor is aligned.
    """
    header: JsonObject = {"__metadata__": dict(sorted(metadata.items()))}
    position = 0
    order = sorted(entries, key=lambda name: (-DTYPES[entries[name][0]][0], name))
    for name in order:
        dtype, shape = entries[name][0], [int(side) for side in entries[name][1]]
        end = position + DTYPES[dtype][0] * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [position, end]}
        position = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    start = 8 + len(text)
    tensors = {}
    for name in order:
        a, b = header[name]["data_offsets"]
        tensors[name] = TensorInfo(header[name]["dtype"], tuple(header[name]["shape"]), start + a, start + b)
    return Layout(struct.pack("<Q", len(text)) + text, tensors, start + position)


def to_bytes(tensors: Mapping[str, mx.array | np.ndarray], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file whose bytes depend on names, values and metadata alone: all is in sorted order."""
    plain = {name: _raw(value) for name, value in tensors.items()}
    plan = layout({name: (dtype, shape) for name, (dtype, shape, _) in plain.items()}, metadata)
    return plan.head + b"".join(plain[name][2] for name in plan.tensors)


def _raw(value: mx.array | np.ndarray) -> tuple[str, tuple[int, ...], bytes]:
    if isinstance(value, np.ndarray):
        little = np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("<"))
        names = {kind: name for name, (_, kind, _) in DTYPES.items() if name != "BF16"}
        return names[little.dtype.newbyteorder("<").str.replace("|", "<")], value.shape, little.tobytes()
    bits = value.view(mx.uint16) if value.dtype == mx.bfloat16 else value
    return NAMES[value.dtype], tuple(value.shape), np.array(bits).tobytes()
