"""One corpus file, written row by row under a hidden name: laid out first, hashed last, then visible."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from mlx_lvm.core.files.disk import write_at
from mlx_lvm.core.files.safetensors import DTYPES, layout
from mlx_lvm.data.card import EncoderCard
from mlx_lvm.data.storage.mapped import AS_DRAWN, UNIT
from mlx_lvm.data.storage.reader import FORMAT, PROVENANCE, VERSION
from mlx_lvm.data.storage.rows import RowCheck, Stored, row_in_words, to_stored, unit_rows
from mlx_lvm.errors import InvalidFile, Problems, writing

NO_DIGEST = "0" * 64
HASH_BYTES = 16 << 20


class CorpusFile:
    """`put` may be called in any order; `finish` makes the file complete, `place` visible."""

    def __init__(
        self,
        path: Path,
        offsets: np.ndarray,
        names: list[str],
        card: EncoderCard,
        provenance: dict[str, str],
        dtype: str,
        assigned: np.ndarray | None = None,
        as_drawn: bool = False,
    ) -> None:
        self.path, self.dtype, self.as_drawn, self.made_unit = path, dtype, as_drawn, 0
        self.temporary = path.with_name(f".{path.name}.partial")
        self.offsets, self.names = offsets, names
        self.row_check = RowCheck(partial(row_in_words, offsets=offsets, names=names))
        rows = int(offsets[-1])
        self.small: dict[str, np.ndarray] = {
            "document_offsets": np.asarray(offsets, dtype="<i8"),
            "document_names": np.frombuffer(json.dumps(names, ensure_ascii=False).encode(), dtype=np.uint8),
        }
        if card.probes is not None:
            self.small["probes"] = np.ascontiguousarray(card.probes, dtype="<f4")
        if assigned is not None:
            self.small["document_split"] = np.asarray(assigned, dtype=np.uint8)
        kinds = {"i8": "I64", "u1": "U8", "f4": "F32"}
        self.entries: dict[str, tuple[str, Sequence[int]]] = {
            "vectors": (dtype, (rows, card.dim)),
            **{name: (kinds[value.dtype.str[1:]], value.shape) for name, value in self.small.items()},
        }
        if dtype == "I8":
            self.entries["scales"] = ("F32", (rows,))
        self.metadata = {
            "format": FORMAT,
            "format_version": VERSION,
            "encoder_card": json.dumps(card.to_dict(), sort_keys=True),
            "rows": AS_DRAWN if as_drawn else UNIT.format(0),
            "sha256": NO_DIGEST,
            "sha256_rest": NO_DIGEST,
            **{key: provenance.get(key, "") for key in PROVENANCE},
        }
        self.plan = layout(self.entries, self.metadata)
        self.row_bytes = DTYPES[dtype][0] * card.dim
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self.descriptor = os.open(self.temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
            os.ftruncate(self.descriptor, self.plan.size)

    def put(self, start: int, rows: Stored) -> None:
        """Rows as stored, or as float32, to rows from `start` on; of unit length unless they are as drawn."""
        if not self.as_drawn:
            rows, changed = unit_rows(rows)
            self.made_unit += changed
        if rows.vectors.dtype == np.float32:
            rows = to_stored(rows.vectors, self.dtype)
        self.row_check.add(start, *rows)
        self._write(self.plan.tensors["vectors"].start + start * self.row_bytes, rows.vectors)
        if rows.scales is not None:
            self._write(self.plan.tensors["scales"].start + 4 * start, rows.scales)

    def _write(self, position: int, values: np.ndarray) -> None:
        with writing(self.path):
            write_at(self.descriptor, values, position)

    def finish(self) -> str:
        """Writes what is left, with the digests, and flushes it to the drive. Returns that of the vectors.

        Raises InvalidFile where a row is unfit.
        """
        Problems(f"corpus {self.path}", self.row_check.problems()).raise_if_any(InvalidFile)
        for name, value in self.small.items():
            self._write(self.plan.tensors[name].start, value)
        digest, rest = hashlib.sha256(), hashlib.sha256()
        with writing(self.path):
            for name, tensor in sorted(self.plan.tensors.items()):
                into = digest if name == "vectors" else rest
                for position in range(tensor.start, tensor.end, HASH_BYTES):
                    into.update(os.pread(self.descriptor, min(HASH_BYTES, tensor.end - position), position))
            self.metadata.update(sha256=digest.hexdigest(), sha256_rest=rest.hexdigest())
            if not self.as_drawn:
                self.metadata["rows"] = UNIT.format(self.made_unit)
            head = layout(self.entries, self.metadata).head
            write_at(self.descriptor, np.frombuffer(head, np.uint8), 0)
            os.fsync(self.descriptor)
        return digest.hexdigest()

    def place(self) -> None:
        self.close()
        os.replace(self.temporary, self.path)

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def abandon(self) -> None:
        self.close()
        self.temporary.unlink(missing_ok=True)
