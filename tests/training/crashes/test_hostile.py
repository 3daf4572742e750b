"""Files that somebody damaged or made up: flipped bits, cut ends, mutated headers, full disks. All refused,
with a reason.

`pytest -m long tests/training/test_hostile.py` takes every bit and 20,000 files (about three minutes); the
short form takes a share of them.
"""

import contextlib
import json
import random
import resource
import shutil
import struct
import threading
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError, deserialize

from mlx_lvm.core.files.safetensors import DTYPES, open_safetensors, to_bytes
from mlx_lvm.core.mlx import mx
from mlx_lvm.errors import InvalidFile, IOFailed, LvmError
from mlx_lvm.hub.load import load_weights_file
from mlx_lvm.models import build
from mlx_lvm.models.amn import AMNConfig
from mlx_lvm.training import checkpoint as checkpoints
from mlx_lvm.training.checkpoint import Checkpoint

from ...helpers import peak

long = pytest.mark.long
SHARES = [
    pytest.param(12, id="short"),
    pytest.param(1, id="long", marks=long),
]  # one damage of so many is tried
NAME = "step-00000002"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two checkpoints of a small model."""
    out = tmp_path_factory.mktemp("run") / "checkpoints"
    weights = build(AMNConfig(dim=16, attention_dim=4, hidden_dim=8)).weights()
    moments = {
        f"{part}.{name}": value * 0.1 for part in ("first", "second") for name, value in weights.items()
    }
    for number in (1, 2):
        checkpoints.save(
            out,
            Checkpoint(weights, moments, {"count": number, "history": [{"epoch": 1}]}),
            f"step-{number:08d}",
            ("LATEST",),
        )
    return out


def refused(folder: Path, path: Path, data: bytes, whole: bytes) -> None:
    """With `data` in place of a file, the checkpoint is refused by name and the earlier one is taken."""
    path.write_bytes(data)
    try:
        with pytest.raises(InvalidFile, match=f"checkpoint .*{NAME}"):
            checkpoints.load(folder / NAME)
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("file", [*checkpoints.FILES, "manifest.json"])
def test_every_flipped_bit_is_seen(folder: Path, file: str, share: int) -> None:
    """One bit in every header byte, in a thousand data bits and in every byte of the JSON files."""
    rng = random.Random(file)
    path = folder / NAME / file
    whole = path.read_bytes()
    header = 8 + struct.unpack("<Q", whole[:8])[0] if file.endswith(".safetensors") else len(whole)
    places = [(byte, rng.randrange(8)) for byte in range(header)]
    places += (
        [(rng.randrange(header, len(whole)), rng.randrange(8)) for _ in range(500)]
        if header < len(whole)
        else []
    )
    for byte, bit in rng.sample(places, len(places) // share):
        data = bytearray(whole)
        data[byte] ^= 1 << bit
        refused(folder, path, bytes(data), whole)
    assert checkpoints.load_newest(folder)[1:] == (NAME, [])


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("file", [*checkpoints.FILES, "manifest.json"])
def test_every_cut_is_seen(folder: Path, file: str, share: int) -> None:
    """At every hundredth, and in the first 256 bytes at every byte."""
    path = folder / NAME / file
    whole = path.read_bytes()
    ends = {len(whole) * k // 100 for k in range(100)} | set(range(min(256, len(whole))))
    for end in sorted(ends)[::share]:
        refused(folder, path, whole[:end], whole)
    path.write_bytes(whole + b"\0")
    assert checkpoints.load_newest(folder)[1] == "step-00000001"
    path.write_bytes(whole)


def mutated(rng: random.Random, whole: bytes) -> bytes:
    """A safetensors file with one to three things changed: bytes, lengths, numbers, names, the shape of the
    JSON itself.
    """
    length = struct.unpack("<Q", whole[:8])[0]
    head, data = whole[8 : 8 + length], whole[8 + length :]
    for _ in range(rng.randint(1, 3)):
        kind = rng.randrange(9)
        at = rng.randrange(len(head)) if head else 0
        if kind == 0:
            head = head[:at] + bytes([rng.randrange(256)]) + head[at + 1 :]
        elif kind == 1:
            head = head[:at] + head[at : at + rng.randint(1, 40)] * rng.randint(0, 3) + head[at + 40 :]
        elif kind == 2:
            data = data[: rng.randrange(len(data) + 1)] if data else data
        elif kind == 3:
            data += bytes(rng.randrange(1, 64))
        elif kind == 4:
            length = rng.choice(
                [0, 1, len(head) + rng.randint(-9, 9), 1 << rng.randrange(64), rng.randrange(1 << 20)]
            )
            return struct.pack("<Q", max(length, 0)) + head + data
        else:
            with contextlib.suppress(ValueError, RecursionError):
                entries = json.loads(head)
                change_json(rng, entries)
                head = json.dumps(entries).encode()
                if kind == 8:
                    head = head.replace(
                        b"}",
                        b',"'
                        + rng.choice([b"dtype", b"w", b"__metadata__"])
                        + b'":'
                        + rng.choice([b"1", b"[]", b'"F32"'])
                        + b"}",
                        1,
                    )
    return struct.pack("<Q", len(head)) + head + data


ODD = [
    -1,
    0,
    1,
    2**31,
    2**32,
    2**62,
    2**63,
    2**64,
    10**30,
    1.5,
    1e400,
    True,
    None,
    "",
    "F32",
    "F64",
    "F8",
    "\ud800x".encode("utf-16", "surrogatepass").decode("latin1"),
    [],
    [[]],
    {},
    "a" * 10_000,
]


def change_json(rng: random.Random, entries: object) -> None:
    if not isinstance(entries, dict) or not entries:
        return
    name = rng.choice(list(entries))
    entry = entries[name]
    if isinstance(entry, dict) and entry and rng.random() < 0.8:
        key = rng.choice(list(entry))
        value = entry[key]
        if isinstance(value, list) and value and rng.random() < 0.7:
            value[rng.randrange(len(value))] = rng.choice(
                [*ODD, value[0] + 1 if isinstance(value[0], int) else 0]
            )
        elif rng.random() < 0.2:
            del entry[key]
        else:
            entry[key] = rng.choice(ODD)
    elif rng.random() < 0.3:
        del entries[name]
    elif rng.random() < 0.5:
        entries[rng.choice(["w", "../../x", "é", "\n", name + "2"])] = entry
    else:
        entries[name] = rng.choice(ODD)


def valid(data: bytes) -> bool:
    """The rules of a strict safetensors file, written again from the format's description."""
    length = struct.unpack("<Q", data[:8])[0]
    pairs = json.loads(data[8 : 8 + length], object_pairs_hook=lambda found: [("pairs",), *found])[1:]
    names = [name for name, _ in pairs]
    spans = []
    for name, entry in pairs:
        if name == "__metadata__":
            if (
                not all(isinstance(value, str) for _, value in entry[1:])
                or len({key for key, _ in entry[1:]}) < len(entry) - 1
            ):
                return False
            continue
        fields = dict(entry[1:])
        if len(entry) != 4 or set(fields) != {"dtype", "shape", "data_offsets"}:
            return False
        start, end = fields["data_offsets"]
        if (end - start) != DTYPES[fields["dtype"]][0] * int(np.prod(fields["shape"], dtype=object)):
            return False
        spans.append((start, end))
    spans.sort()
    starts, ends = [start for start, _ in spans], [end for _, end in spans]
    return len(set(names)) == len(names) and [*starts, len(data) - 8 - length] == [0, *ends]


@pytest.mark.parametrize("count", [1200, pytest.param(20_000, marks=long)])
def test_mutated_files(tmp_path: Path, count: int) -> None:
    """No crash, nothing accepted that is not valid (by our own rules and by the safetensors package), little
    time and memory.
    """
    rng = random.Random(count)
    tensors = {
        "a.weight": np.ones((3, 5), np.float32),
        "a.bias": np.ones(3, np.float16),
        "b": np.arange(4, dtype=np.int64),
        "none": np.zeros((0, 2), np.float32),
    }
    whole = to_bytes(tensors, {"format": "pt", "note": "x" * 40})
    path = tmp_path / "m.safetensors"
    accepted, slowest, largest = 0, 0.0, 0
    tracemalloc.start()
    try:
        for _ in range(count):
            data = mutated(rng, whole)
            path.write_bytes(data)
            tracemalloc.reset_peak()
            before, started = tracemalloc.get_traced_memory()[0], time.process_time()
            try:
                file = open_safetensors(path)
                for name in file.tensors:
                    file.array(name)
            except LvmError as error:
                file = None
                assert str(path) in str(error) and len(str(error)) < 5000
            slowest = max(slowest, time.process_time() - started)
            largest = max(largest, tracemalloc.get_traced_memory()[1] - before)
            if file is not None:
                accepted += 1
                assert valid(data)
                with contextlib.suppress(
                    SafetensorError
                ):  # it caps what we do not, such as non-ASCII in its own way
                    assert {name for name, _ in deserialize(data)} == set(file.tensors)
    finally:
        tracemalloc.stop()
    assert slowest < 0.2 and largest < 50e6, f"slowest {slowest:.3f} s, most memory {largest / 1e6:.1f} MB"
    assert 0 < accepted < count / 3, "some changes (a name, metadata) leave the file valid; most do not"


@pytest.mark.parametrize(
    "text",
    [
        b"{" + b'"a":{"a":{},"a":{}},' * 200_000 + b'"z":1}',
        b'{"a":' + b"[" * 1_500_000 + b"]" * 1_500_000 + b"}",
        b'{"__metadata__":{"a":"' + "😀".encode() * 1_000_000 + b'"}}',
        b'{"a":' + b"9" * 4_000_000 + b"}",
        b"{"
        + b",".join(b'"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % k for k in range(60_000))
        + b"}",
        b'{"' + b"\\u0001" * 600_000 + b'":3}',
    ],
    ids=["keys", "deep", "wide", "digits", "tensors", "name"],
)
def test_headers_made_to_cost_much(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "big.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    tracemalloc.start()
    started = time.process_time()
    try:
        with contextlib.suppress(InvalidFile):
            open_safetensors(path)
        seconds, peak = time.process_time() - started, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 50e6 and seconds < 0.2, f"{peak / 1e6:.0f} MB, {seconds:.3f} s"


def exported(path: Path, **described: object) -> dict[str, mx.array]:
    weights = build(AMNConfig(dim=16, attention_dim=4, hidden_dim=8)).weights()
    model = {"model_type": "amn", "dim": 16, "attention_dim": 4, "hidden_dim": 8}
    path.write_bytes(to_bytes(weights, {"mlx_lvm": json.dumps({"model": model, **described})}))
    return weights


HUGE = {
    "model_type": "transformer",
    "dim": 65536,
    "hidden_dim": 65536,
    "layers": 64,
    "heads": 1024,
    "ffn_dim": 262144,
}


@pytest.mark.parametrize(
    "metadata",
    [
        {"mlx_lvm": "{"},
        {"mlx_lvm": "[" * 100_000},
        {"mlx_lvm": "[]"},
        {"mlx_lvm": '{"model": 3}'},
        {"mlx_lvm": '{"model": {"model_type": ["amn"]}}'},
        {"mlx_lvm": '{"model": {"model_type": "../amn"}}'},
        {"mlx_lvm": json.dumps({"model": HUGE})},
        {"mlx_lvm": '{"model": {"model_type": "amn", "dim": 1e99}}'},
        {"mlx_lvm": '{"context": "x"}'},
        {"mlx_lvm": '{"context": 1e999}'},
        {"mlx_lvm": '{"corpus": 5}'},
        {"mlx_lvm": '{"train": [1]}'},
        {"mlx_lvm": '{"encoder_card": {"probes": 5, "dim": "x"}}'},
        {"golden_input": "!", "golden_output": "!"},
        {"golden_input": "", "golden_output": ""},
        {"golden_input": "AAAA" * 16, "golden_output": "AAAA"},
        {"golden_input": "AAAA" * 16 * 400 * 4, "golden_output": "A" * 171 + "="},
    ],
)
def test_metadata_that_makes_no_sense(tmp_path: Path, metadata: dict[str, str]) -> None:
    """Refused as an invalid file, whatever part of the loader meets it, and before anything large is
    allocated.
    """
    path = tmp_path / "model.safetensors"
    weights = exported(path)
    known = json.loads(open_safetensors(path).metadata["mlx_lvm"])
    with contextlib.suppress(ValueError, RecursionError):
        described = json.loads(metadata.get("mlx_lvm", "{}"))
        metadata = metadata | {
            "mlx_lvm": json.dumps(known | described) if isinstance(described, dict) else metadata["mlx_lvm"]
        }
    path.write_bytes(to_bytes(weights, metadata))
    before = peak()
    with pytest.raises(InvalidFile) as error:
        load_weights_file(path)
    assert str(path) in str(error.value)
    assert peak() - before < 200_000_000


@pytest.mark.parametrize("kind", ["unknown", "missing", "shape", "integers", "nan", "inf"])
def test_weights_that_do_not_fit(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "model.safetensors"
    weights = exported(path)
    name = "context_encoder.weight"
    changes = {
        "unknown": {"../evil": mx.zeros((1,))},
        "shape": {name: mx.zeros((4, 15))},
        "integers": {name: mx.zeros((4, 16), mx.int32)},
        "nan": {name: mx.full((4, 16), float("nan"))},
        "inf": {name: mx.full((4, 16), float("-inf"))},
    }.get(kind, {})
    changed = {**weights, **changes}
    if kind == "missing":
        changed.pop(name)
    path.write_bytes(to_bytes(changed, open_safetensors(path).metadata))
    with pytest.raises(InvalidFile, match="evil" if kind == "unknown" else name):
        load_weights_file(path)


@pytest.mark.parametrize(
    "percent", [0, 5, 50, 95, 100, *(pytest.param(p, marks=long) for p in range(10, 95, 5) if p != 50)]
)
def test_a_disk_that_is_full_at_some_point(tmp_path: Path, percent: int) -> None:
    """The largest file is cut at a share of its size, as a full disk would; the message names the cause."""
    out = tmp_path / "checkpoints"
    first, second = ({"w": mx.full((20_000,), value)} for value in (1.0, 2.0))
    checkpoints.save(out, Checkpoint(first, first, {"count": 1}), "step-00000001", ("LATEST",))
    size = (out / "step-00000001/model.safetensors").stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size * percent // 100, hard))
    try:
        checkpoints.save(out, Checkpoint(second, second, {"count": 2}), "step-00000002", ("LATEST",))
    except IOFailed as error:
        failed = str(error)
    else:
        failed = ""
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert ("File too large" in failed and "intact" in failed) == (percent < 100)
    loaded, name, damaged = checkpoints.load_newest(out)
    assert (name, damaged) == (("step-00000001" if failed else "step-00000002"), [])
    assert loaded.weights["w"][0].item() == (1 if failed else 2)
    assert not [path for path in out.iterdir() if checkpoints.is_temporary(path.name)]


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.mkdir", fail)
        with pytest.raises(IOFailed, match="Permission denied"):
            checkpoints.save(tmp_path / "checkpoints", Checkpoint({}, {}, {}), "step-00000001", ())


def test_odd_names_in_the_folder(folder: Path, tmp_path: Path) -> None:
    """Names of files never become anything but names, and strangers' files stay."""
    mine = tmp_path / "checkpoints"
    shutil.copytree(folder, mine)
    for name in ("step-", "step-x", "step-²", "step--1", "step-" + "9" * 100):
        (mine / name).mkdir()
    (mine / "step-00000003").symlink_to(tmp_path)
    (mine / "notes.tmp").write_text("mine")
    checkpoints.prune(mine)
    assert checkpoints.load_newest(mine)[1] == NAME and (mine / "notes.tmp").exists() and tmp_path.exists()
    for text in ("../../x", "step-1/../..", "step-" + "1" * 10_000, "\0", "step-²"):
        (mine / "LATEST").write_text(text)
        assert checkpoints.pointed(mine, "LATEST") is None and checkpoints.load_newest(mine)[1] == NAME


@pytest.mark.slow
def test_a_reader_during_saves_sees_whole_checkpoints(tmp_path: Path) -> None:
    """Weights, moments and state of every read belong together, and nothing is ever reported damaged."""
    out = tmp_path / "checkpoints"

    def save(number: int) -> None:
        parts = {"w": mx.full((512,), number)}
        checkpoints.save(
            out, Checkpoint(parts, parts, {"count": number}), f"step-{number:08d}", ("LATEST", "BEST")
        )
        checkpoints.prune(out)

    save(1)
    ended, problems, seen = threading.Event(), [], set()

    def read() -> None:
        while not ended.is_set():
            try:
                loaded, name, damaged = checkpoints.load_newest(out, "BEST")
                values = np.concatenate(
                    [
                        np.array(loaded.weights["w"]),
                        np.array(loaded.optimizer["w"]),
                        [loaded.state["count"], int(name[5:])],
                    ]
                )
                seen.add(int(name[5:]))
                if damaged or len(set(values.tolist())) != 1:
                    problems.append((name, damaged))
            except Exception as error:
                problems.append((repr(error), []))

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(2, 50):
        save(number)
    ended.set()
    for reader in readers:
        reader.join()
    assert not problems and len(seen) > 5, problems[:3]
