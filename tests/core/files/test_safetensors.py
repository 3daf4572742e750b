"""The strict reader against the safetensors package, and files that it must refuse."""

import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mlx_lvm.core.files.safetensors import MAX_HEADER, open_safetensors, to_bytes
from mlx_lvm.core.mlx import mx
from mlx_lvm.errors import InvalidFile

TENSORS = {
    "b.weight": np.arange(12, dtype=np.float32).reshape(3, 4),
    "a.half": np.array([0.5, -2.0], dtype=np.float16),
    "c.bytes": np.arange(5, dtype=np.int8),
    "d.long": np.array([1, -(2**40)], dtype=np.int64),
    "e.empty": np.zeros((0, 3), dtype=np.float32),
}


def test_safetensors_reads_what_we_write(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(to_bytes(TENSORS, {"format": "pt", "z": "é"}))
    loaded = load_file(tmp_path / "x.safetensors")
    assert set(loaded) == set(TENSORS)
    for name, value in TENSORS.items():
        assert loaded[name].dtype == value.dtype
        np.testing.assert_array_equal(loaded[name], value)


def test_we_read_what_safetensors_writes(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "x.safetensors", {"key": "value"})
    file = open_safetensors(tmp_path / "x.safetensors")
    assert file.metadata == {"key": "value"}
    for name, value in TENSORS.items():
        np.testing.assert_array_equal(file.numpy(name), value)
        np.testing.assert_array_equal(np.array(file.array(name)), value)


def test_bfloat16_keeps_its_bits(tmp_path: Path) -> None:
    value = mx.array([1.0, -3.25, 1e-30, 7.0]).astype(mx.bfloat16)
    (tmp_path / "x.safetensors").write_bytes(to_bytes({"w": value}, {}))
    back = open_safetensors(tmp_path / "x.safetensors").array("w")
    assert back.dtype == mx.bfloat16 and mx.array_equal(back.view(mx.uint16), value.view(mx.uint16))


def test_bytes_depend_on_content_alone() -> None:
    """Another process, another insertion order: the same bytes. safetensors' own writer fails this."""
    code = (
        "import numpy as np, hashlib; from mlx_lvm.core.files.safetensors import to_bytes\nnames = "
        "{order}\nprint(hashlib.sha256(to_bytes({{n: np.ones(3, np.float32) for n in names}}, {{n: n for n "
        "in names}})).hexdigest())"
    )
    digests = set()
    for order in (list("abcdefgh"), list("hgfedcba")):
        out = subprocess.run(
            [sys.executable, "-c", code.format(order=order)], capture_output=True, text=True, check=True
        )
        digests.add(out.stdout)
    assert len(digests) == 1


def header(entries: dict, data: bytes = b"\0" * 8, **changes: object) -> bytes:
    text = json.dumps(entries | changes).encode()
    return struct.pack("<Q", len(text)) + text + data


GOOD = {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}


def entry(**changes: object) -> dict:
    return {"w": GOOD["w"] | changes}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "too short"),
        (b"\1\2\3", "too short"),
        (struct.pack("<Q", 1 << 60) + b"{}", "header of"),
        (struct.pack("<Q", MAX_HEADER + 1) + b" " * 64, "header of"),
        (struct.pack("<Q", 4) + b"[1] ", "begin with"),
        (struct.pack("<Q", 4) + b"{\xff\xfe}", "not valid JSON"),
        (struct.pack("<Q", 6) + b'{"w":}', "not valid JSON"),
        (struct.pack("<Q", 40000) + b"{" * 1 + b'"a":[' * 7999 + b" " * 4, "not valid JSON"),
        (header(GOOD)[:-1], "cut off"),
        (header(GOOD) + b"\0", "bytes added"),
        (header(entry(dtype="F31")), "dtype 'F31'"),
        (header(entry(dtype=["F32"])), "dtype"),
        (header(entry(shape=[3])), "needs 12 bytes"),
        (header(entry(shape=[-2])), "whole numbers"),
        (header(entry(shape=[2**61, 2**61])), "below 2\\^31"),
        (header(entry(shape=[2**31 - 1, 2**31 - 1])), "needs"),
        (header(GOOD | {"v": {"dtype": "F32", "shape": [0, 2**61], "data_offsets": [8, 8]}}), "below 2\\^31"),
        (header(entry(dtype="x" * 100_000)), r"dtype 'x{96}\.\.\. is not"),
        (header(GOOD, __metadata__={"a": ",[{" * 50_000}), "more than 100,000 brackets"),
        (header(entry(shape=[True, 2])), "whole numbers"),
        (header(entry(data_offsets=[8, 0])), "increasing"),
        (header(entry(data_offsets=[0, 8, 9])), "increasing"),
        (header({"w": {"dtype": "F32", "shape": [2]}}), "exactly"),
        (header({"w": 3}), "exactly"),
        (header(GOOD | {"v": GOOD["w"]}), "overlap"),
        (header(GOOD | {"v": {"dtype": "F32", "shape": [1], "data_offsets": [12, 16]}}, b"\0" * 16), "holes"),
        (header(GOOD, __metadata__={"a": 1}), "text to text"),
    ],
)  # fmt: skip
def test_refused_with_a_reason(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(data)
    with pytest.raises(InvalidFile, match=words) as error:
        open_safetensors(path)
    assert str(path) in str(error.value)


def test_duplicate_keys_are_refused(tmp_path: Path) -> None:
    one = '"w":{"dtype":"F32","shape":[1],"data_offsets":[%d,%d]}'
    text = ("{" + one % (0, 4) + "," + one % (4, 8) + "}").encode()
    (tmp_path / "d").write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * 8)
    with pytest.raises(InvalidFile, match="duplicate key 'w'"):
        open_safetensors(tmp_path / "d")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(InvalidFile, match="no such file"):
        open_safetensors(tmp_path / "none")
    with pytest.raises(InvalidFile, match="is a folder"):
        open_safetensors(tmp_path)
