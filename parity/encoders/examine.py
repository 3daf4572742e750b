"""The checks of one encoder folder: tokens, weights, positions, every layer by itself and in its row, and the
vectors.

    own:        a layer is given the float64 truth of its input, rounded to the dtype under test
    inherited:  a layer is given what the layers before it made
    vectors:    `encode` as it is used, compiled, sorted and padded its own way

torch runs once; `checks` may then be asked for many encoders of ours, with and without a planted fault.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mlx_lvm.core.mlx import mx
from mlx_lvm.encoders.encoder import DTYPES, TextEncoder
from mlx_lvm.encoders.folder import read_folder
from mlx_lvm.errors import NonFiniteError
from mlx_lvm.parity.arbiter import judge
from mlx_lvm.parity.encoders.cases import Texts
from mlx_lvm.parity.encoders.reference import BLOCKS, EMBEDDINGS, FINAL, Reference, Seen
from mlx_lvm.parity.sides.taps import rounded
from mlx_lvm.parity.sides.trace import float64
from mlx_lvm.parity.verdict import Check, Compared, exact, failed

PADDING = 1
Pair = tuple[np.ndarray, np.ndarray]  # what torch gives, and the truth


class Examination:
    """Both torch runs of a folder on every case, in the dtype under test and in float64."""

    def __init__(self, folder: Path, cases: list[Texts], dtype: str = "float32", name: str = "") -> None:
        self.folder, self.cases, self.dtype = Path(folder), cases, dtype
        self.name = name or self.folder.resolve().name
        self.torch, self.truth = Reference(folder, dtype), Reference(folder, "float64")
        self.kind = self.torch.kind
        self.longest = read_folder(folder).max_tokens
        self.ids = {case.name: self.torch.tokens(list(case.texts)) for case in cases}
        self.batches = {name: padded(ids) for name, ids in self.ids.items()}
        self.seen = {
            name: (self.torch.see(*batch), self.truth.see(*batch)) for name, batch in self.batches.items()
        }

    def checks(self, encoder: TextEncoder) -> Iterator[Check]:
        """Everything compared, in order: the first failure is the first place where the two part."""
        yield from self.token_checks(encoder)
        yield from self.weight_checks(encoder)
        yield from self.position_checks(encoder)
        for case in self.cases:
            yield from self.layer_checks(encoder, case.name)
        for case in self.cases:
            yield self.vector_check(encoder, case)

    def token_checks(self, encoder: TextEncoder) -> Iterator[Check]:
        for case in self.cases:
            found, expected = encoder.tokens.ids(list(case.texts)), self.ids[case.name]
            triples = zip(case.texts, found, expected, strict=True)
            differ = [text for text, mine, theirs in triples if mine != theirs]
            note = f"{len(differ)} of {len(found)} texts, the first {differ[0][:40]!r}" if differ else ""
            yield exact(self._what("tokens", "exact", case.name), not differ, note, "tokens", len(found))

    def weight_checks(self, encoder: TextEncoder) -> Iterator[Check]:
        """Bit for bit, from the one file that both read."""
        theirs = self.torch.weights()
        ours = {name: float64(value) for name, value in encoder.model.weights().items()}
        for number, dense in enumerate(encoder.denses):
            ours |= {f"{2 + number}.linear.{key}": float64(value) for key, value in dense.linear.items()}
        for name, value in ours.items():
            other = theirs.get(name)
            same = other is not None and np.array_equal(value, other)
            yield exact(self._what("weights", "exact", "-", name), same, "not torch's", name, value.size)

    def position_checks(self, encoder: TextEncoder) -> Iterator[Check]:
        length = min(self.longest, 512)
        expected = self.torch.position_bias(length)
        if expected is not None:
            found = float64(encoder.model.bias(mx.ones((1, length), mx.int32)))
            same = found.shape == expected.shape and np.array_equal(found, expected)
            what = self._what("positions", "exact", str(length))
            yield exact(what, same, "relative positions in other buckets", "positions", expected.size)

    def layer_checks(self, encoder: TextEncoder, case: str) -> Iterator[Check]:
        ids, mask = self.batches[case]
        here = mask.astype(bool)
        torch, truth = self.seen[case]
        ours = self._steps(encoder, mx.array(mask))
        x = encoder.model.embed(mx.array(ids))
        tap = EMBEDDINGS[self.kind]
        what, sides = self._what("layers", "own", case, tap), (torch.values[tap], truth.values[tap])
        yield self._judge(what, x, sides, here)
        before = truth.values[tap]
        for tap, step in ours:
            what = what._replace(value=tap)
            if tap not in truth.values:
                yield failed(what, "torch has no such step", tap)
                continue
            place = here if truth.values[tap].ndim == 3 else None
            given = rounded(before, self.dtype)
            own = step(mx.array(given.astype(np.float32)).astype(DTYPES[self.dtype]))
            yield self._judge(what, own, (torch.calls[tap](given), truth.calls[tap](given)), place)
            x, sides = step(x), (torch.values[tap], truth.values[tap])
            yield self._judge(what._replace(run="inherited"), x, sides, place)
            before = truth.values[tap]
        yield from self._left_out(case, [name for name, _ in ours], truth)

    def _steps(self, encoder: TextEncoder, mask: mx.array) -> list:
        """(tap, function) of every step after the embedding."""
        model, bias = encoder.model, encoder.model.bias(mask)
        blocks = enumerate(model.blocks)
        steps: list = [(f"{BLOCKS[self.kind]}.{n}", lambda x, b=block: b(x, bias)) for n, block in blocks]
        if self.kind in FINAL:
            steps.append((FINAL[self.kind], model.finish))
        steps.append(("pooling", lambda x: encoder.pooling(x, mask)))
        return steps + [(f"{2 + n}.dense", dense) for n, dense in enumerate(encoder.denses)]

    def _left_out(self, case: str, taps: list[str], truth: Seen) -> Iterator[Check]:
        """A step of torch's that ours has not."""
        for tap in set(truth.values) - {*taps, EMBEDDINGS[self.kind], "unit"}:
            yield failed(self._what("layers", "own", case, tap), "left out", tap)

    def vector_check(self, encoder: TextEncoder, case: Texts) -> Check:
        torch, truth = (side.values["unit"] for side in self.seen[case.name])
        what = self._what("vectors", "compiled", case.name, "unit")
        try:
            found = encoder.encode(list(case.texts)).astype(np.float64)
        except NonFiniteError as error:
            return failed(what, str(error), "unit")
        return judge(what, found, torch, truth, self.dtype, must_observe=True)

    def _judge(self, what: Compared, ours: mx.array, sides: Pair, here: np.ndarray | None) -> Check:
        """Where there is a text, `here`; what stands in the padding is nobody's business."""
        found, (torch, truth) = float64(ours), sides
        if found.shape != truth.shape:
            return failed(what, f"shapes differ: MLX {found.shape}, torch {truth.shape}", what.value)
        if here is not None:
            found, torch, truth = found[here], torch[here], truth[here]
        return judge(what, found, torch, truth, self.dtype, must_observe=True)

    def _what(self, stage: str, run: str, case: str, value: str = "") -> Compared:
        return Compared(self.name, stage, "given", run, case, value)


def padded(ids: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Ids and mask [texts, longest], as a batch of torch's is padded."""
    length = max(map(len, ids))
    out = np.full((len(ids), length), PADDING, np.int32)
    mask = np.zeros((len(ids), length), np.int32)
    for row, text in enumerate(ids):
        out[row, : len(text)], mask[row, : len(text)] = text, 1
    return out, mask
