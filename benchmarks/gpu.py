"""MLX against torch on the same GPU: forward pass and training step of every model, in float32, with TF32,
and in bfloat16.

    python benchmarks/gpu.py --out benchmarks/gpu.json    # an hour; --no-compile takes minutes
    python benchmarks/gpu.py --table benchmarks/gpu.json  # the table again, without a GPU

The programs are those of `lvm bench`: MLX's compiled one and torch's eager and compiled ones take turns, each
side in a process of its own. Every row is written when it is measured, and a second run measures only what
the file lacks, on the same device and versions or not at all. --device cpu tries the script where there is no
GPU; such figures say nothing about one.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from mlx_lvm.core.linux_cpu import tune

tune()

from mlx_lvm.bench.timing import Bench, rows
from mlx_lvm.bench.workers import Options
from mlx_lvm.core.files.disk import read_json, write_json
from mlx_lvm.core.result import as_json
from mlx_lvm.errors import LvmError, SetupInvalid
from mlx_lvm.models import trained

PRECISIONS = {
    "float32": ("float32", False),
    "tf32": ("float32", True),
    "bfloat16": ("bfloat16", False),
}  # dtype, TF32
TASKS = {"forward": (1, 8, 32, 128, 1024, 4096), "train": (32, 128, 256, 1024, 4096)}
SIDES = {"mlx": ("mlx_lvm.bench.speed", "Mlx"), "torch": ("mlx_lvm.parity.speed", "Torch")}
AIMS = {("forward", 1), ("train", 256)}  # no slower than torch eager there, and at most 1.3 of torch.compile
EAGER, COMPILED = 1.0, 1.3


def key(row: dict[str, Any]) -> tuple[str, str, str, int]:
    return row["model"], row["precision"], row["task"], row["batch"]


def ratio(row: dict[str, Any], how: str) -> float | None:
    """MLX's median to that of torch run so."""
    mine, other = row["mlx"].get("compiled"), row["torch"].get(how)
    return mine["median"] / other["median"] if mine and other else None


def table(found: dict[str, Any]) -> str:
    """Markdown: what ran where, then a row for each measurement; the aims are marked where they are met."""
    lines = [
        f"{side}: {' '.join(str(about[key]) for key in ('version', 'device', 'name'))}"
        for side, about in found["about"].items()
    ]
    lines += [
        "",
        "| model | precision | task | batch | MLX ms | torch eager ms | torch.compile ms | MLX / eager | MLX "
        "/ compile |",
        "|" + "---|" * 9,
    ]
    for row in sorted(found["rows"], key=key):
        times = [row["mlx"].get("compiled"), row["torch"].get("eager"), row["torch"].get("compiled")]
        cells = [f"{time['median']:.3f}" if time else "" for time in times]
        for how, limit in (("eager", EAGER), ("compiled", COMPILED)):
            value, aimed = ratio(row, how), (row["task"], row["batch"]) in AIMS
            cells.append(
                "" if value is None else f"**{value:.2f}**" if aimed and value <= limit else f"{value:.2f}"
            )
        lines.append(
            f"| {row['model']} | {row['precision']} | {row['task']} | {row['batch']} | "
            + " | ".join(cells)
            + " |"
        )
    lines += [f"\nnot run: {note}" for note in found["notes"]]
    return "\n".join(lines)


def aims(found: dict[str, Any]) -> list[str]:
    """A line for each comparison that was aimed at and missed."""
    missed = []
    for row in sorted(found["rows"], key=key):
        for how, limit in (("eager", EAGER), ("compiled", COMPILED)):
            value = ratio(row, how)
            if (row["task"], row["batch"]) in AIMS and value is not None and value > limit:
                missed.append(f"{' '.join(map(str, key(row)))}: {value:.2f} of torch {how}, over {limit}")
    return missed


def measure(arguments: argparse.Namespace, found: dict[str, Any]) -> None:
    """What `found` lacks, into it and its file. Raises SetupInvalid where the file is of another device or
    version.
    """
    for precision in arguments.precisions:
        dtype, tf32 = PRECISIONS[precision]
        for model in arguments.models:
            have = {key(row) for row in found["rows"]}
            sizes = {"forward": arguments.forward, "train": arguments.train}
            tasks = [
                (task, [n for n in sizes[task] if (model, precision, task, n) not in have]) for task in TASKS
            ]
            if not any(batches for _, batches in tasks):
                continue
            with tempfile.TemporaryDirectory() as folder:
                options = Options(
                    model, folder, arguments.corpus, device=arguments.device, dtype=dtype, tf32=tf32
                )
                with Bench(SIDES, options) as timing:
                    about = as_json(timing.about)
                    if found["about"] not in ({}, about):
                        raise SetupInvalid(
                            f"{arguments.out} is of {found['about']}, this is {about}: choose another --out"
                        )
                    found["about"] = about

                    def say(text: str, precision: str = precision) -> None:
                        print(f"{precision} {text}", file=sys.stderr, flush=True)

                    def note(text: str, model: str = model, precision: str = precision) -> None:
                        found["notes"].append(f"{model} {precision}: {text}")

                    for row in rows(timing, tasks, arguments.seconds, arguments.compile, note, say):
                        found["rows"].append({"precision": precision, **row.to_dict(), "peaks": timing.peaks})
                        write_json(arguments.out, found)
            write_json(arguments.out, found)  # with what was noted after its last row


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=trained(), default=trained())
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument(
        "--forward", nargs="*", type=int, default=TASKS["forward"], help="batch sizes of the forward pass"
    )
    parser.add_argument(
        "--train", nargs="*", type=int, default=TASKS["train"], help="batch sizes of the training step"
    )
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="leave torch.compile out")
    parser.add_argument("--corpus", default="sotu")
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu")
    parser.add_argument("--seconds", type=float, default=0.5, help="for each program and batch size")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--table", type=Path, help="print the table of this file and measure nothing")
    arguments = parser.parse_args()
    path = arguments.table or arguments.out
    if arguments.table and not path.exists():
        parser.error(f"no file {path}")
    found: dict[str, Any] = {"about": {}, "rows": [], "notes": []}
    try:
        if path.exists():
            found = read_json(path)
        if not arguments.table:
            measure(arguments, found)
    except LvmError as error:
        sys.exit(f"error: {error}")
    print(table(found))
    for line in aims(found):
        print(f"missed: {line}", file=sys.stderr)


if __name__ == "__main__":
    main()
