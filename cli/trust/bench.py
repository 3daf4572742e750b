"""`lvm bench`: MLX and torch timed in turn on the same device, compared with this machine's roofline."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Annotated, NamedTuple

import typer

from mlx_lvm.bench.timing import Bench, Row, Times, rows
from mlx_lvm.bench.workers import About, Options
from mlx_lvm.cli.shared.common import Json, Markdown, Output, how_option, timed_option
from mlx_lvm.core.result import JsonObject, Result, markdown_table
from mlx_lvm.errors import UsageError, nearest
from mlx_lvm.models import architecture, build, trained

app = typer.Typer(add_completion=False, rich_markup_mode="rich")

FORWARD, TRAIN = (1, 8, 32, 128, 1024), (32, 256, 1024)
COLUMNS = {
    "model": 11, "task": 7, "batch": 5, "mlx ms": 7, "p95": 7, "p99": 7, "eager": 7,
    "torch ms": 8, "torch p95": 9, "torch p99": 9, "compiled": 8, "mlx/torch": 9, "roofline": 8,
}  # fmt: skip
LESS = ("p95", "p99", "eager", "torch p95", "torch p99", "compiled")  # what a narrow terminal goes without


@app.command()
def bench(
    model: Annotated[
        str, typer.Argument(help=f"Architecture at its default sizes: {', '.join(trained())}, or all.")
    ] = "amn",
    against: Annotated[
        str, timed_option(metavar="torch|none", help="Whose times are compared with MLX's.")
    ] = "torch",
    tasks: Annotated[
        str, timed_option(metavar="forward|train|epoch|load", help="What to time; several with commas.")
    ] = "forward,train,epoch,load",
    batches: Annotated[str, timed_option(help="Batch sizes, with commas, in place of the usual ones.")] = "",
    context: Annotated[int, timed_option(min=1, max=100, help="Chunks that a window reads.")] = 5,
    corpus: Annotated[
        str, timed_option("--corpus", "-c", metavar="NAME|FILE", help="Where windows come from.")
    ] = "sotu",
    dtype: Annotated[
        str,
        timed_option(metavar="float32|bfloat16|float16", help="Precision; float16 of a forward pass alone."),
    ] = "float32",
    torch_compile: Annotated[
        bool, timed_option("--torch-compile", help="Also torch.compile (a minute of compiling a model).")
    ] = False,
    device: Annotated[str, how_option(metavar="cpu|gpu", help="Default: the GPU where MLX has one.")] = "",
    threads: Annotated[int, how_option(min=0, help="Threads of both sides on a CPU; 0 takes all cores.")] = 0,
    tf32: Annotated[
        bool, how_option("--tf32", help="Let a GPU round the inputs of products, on both sides.")
    ] = False,
    seconds: Annotated[float, how_option(min=0.01, help="To spend on each program and cell.")] = 1.0,
    expect: Annotated[
        bool,
        typer.Option(
            "--expect", help="Print what Apple's chips need at least, from public figures; times nothing."
        ),
    ] = False,
    as_markdown: Markdown = False,
    json: Json = False,
) -> None:
    """Time MLX and torch in turn, each in its own process, on the same class of device.

    Refuses to compare across devices.

    mlx ms is the compiled program that the library runs; torch ms is torch as people write it, eager. The
    roofline is the larger of FLOPs / the fastest product and bytes / the fastest copy that either side
    reached here just before.

    Examples:  lvm bench
               lvm bench all --tasks forward,train --torch-compile --json > bench.json
               lvm bench --device gpu --tasks forward --batches 1,64,4096 --tf32
               lvm bench --expect
    """
    out = Output(json)
    if expect:
        _expect(out, as_markdown)
        return
    plan = _plan(model, tasks, batches, against, dtype, device)
    sides = {"mlx": ("mlx_lvm.bench.speed", "Mlx")}
    if against == "torch" and find_spec("torch") is None:
        out.notes.print("note: torch is not installed, so MLX stands alone; pip install 'mlx-lvm[parity]'")
    elif against == "torch":
        sides["torch"] = ("mlx_lvm.parity.speed", "Torch")
    found = Found()
    table, live = _Table(out, as_markdown), out.console if out.terminal else out.notes
    for name in plan.models:
        with tempfile.TemporaryDirectory() as folder, live.status("", refresh_per_second=2) as status:
            options = Options(name, folder, corpus, context, device, threads, dtype, tf32)
            with Bench(sides, options) as timing:
                status.update(f"{name}: this machine's peaks")
                found.about, found.peaks = timing.about, timing.peaks
                for row in rows(
                    timing, plan.tasks, seconds, torch_compile, found.notes.append, status.update
                ):
                    found.rows.append(row)
                    table.add(row)
                found.memory[name] = timing.memory()
    _about(out, found)
    out.result(found.to_dict())


class Plan(NamedTuple):
    """tasks: (task, batch sizes)."""

    models: Sequence[str]
    tasks: list[tuple[str, Sequence[int]]]


@dataclass
class Found(Result):
    """All that was measured. memory: peak bytes by model and side."""

    rows: list[Row] = field(default_factory=list)
    memory: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    peaks: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    about: dict[str, About] = field(default_factory=dict)

    def to_dict(self) -> JsonObject:
        memory = [{"model": model, **sides} for model, sides in self.memory.items()]
        return {**super().to_dict(), "memory": memory}


def _plan(model: str, tasks: str, batches: str, against: str, dtype: str, device: str) -> Plan:
    """Models and (task, batch sizes). Raises UsageError for what is not known."""
    known = {"forward": FORWARD, "train": TRAIN, "epoch": (32,), "load": (1,)}
    if model != "all" and model not in trained():
        raise UsageError(f"unknown model '{model}'.{nearest(model, [*trained(), 'all'])}")
    chosen = [task.strip() for task in tasks.split(",") if task.strip()]
    for task in chosen:
        if task not in known:
            raise UsageError(f"unknown task '{task}'.{nearest(task, list(known))}")
    for value, allowed in (
        (against, ("torch", "none")),
        (dtype, ("float32", "bfloat16", "float16")),
        (device, ("", "cpu", "gpu")),
    ):
        if value not in allowed:
            raise UsageError(f"'{value}': expected one of {', '.join(filter(None, allowed))}")
    if "load" in chosen and dtype != "float32":
        raise UsageError(f"--dtype {dtype}: weights are loaded as float32; leave load out of --tasks")
    if dtype == "float16" and set(chosen) - {"forward"}:
        raise UsageError("--dtype float16 is of the forward pass: add --tasks forward")
    try:
        sizes = tuple(int(part) for part in batches.split(",")) if batches else None
    except ValueError:
        sizes = (0,)
    if sizes is not None and min(sizes) < 1:
        raise UsageError(f"--batches {batches}: expected whole numbers above 0 with commas between them")
    models = trained() if model == "all" else (model,)
    return Plan(models, [(t, sizes if sizes and t != "load" else known[t]) for t in chosen])


class _Table:
    """Rows as they are measured."""

    def __init__(self, out: Output, as_markdown: bool) -> None:
        self.out, self.as_markdown, self.headed = out, as_markdown, False
        wide = sum(COLUMNS.values()) + 2 * len(COLUMNS)
        narrow = out.terminal and not as_markdown and out.console.width < wide
        self.columns = [name for name in COLUMNS if not narrow or name not in LESS]

    def add(self, row: Row) -> None:
        if not self.headed:
            self._line(self.columns, style="bold")
            if self.as_markdown:
                self.out.say("|" + "---|" * len(self.columns))
            self.headed = True
        cells = dict(zip(COLUMNS, _cells(row), strict=True))
        self._line([cells[name] for name in self.columns])

    def _line(self, cells: list[str], style: str = "") -> None:
        if self.as_markdown:
            self.out.say("| " + " | ".join(cells) + " |")
            return
        sides = ["<" if name in ("model", "task") else ">" for name in self.columns]
        named = zip(self.columns, sides, cells, strict=True)
        told = "  ".join(f"{cell:{side}{COLUMNS[name]}}" for name, side, cell in named)
        self.out.say(told.rstrip(), style=style)


def _about(out: Output, found: Found) -> None:
    """Devices, versions, peaks, memory and notes."""
    for side, about in found.about.items():
        out.say(f"{side} {about.version} on {about.device} {about.name}, {about.threads} threads")
    flops, rate = found.peaks["flops"] / 1e9, found.peaks["bytes"] / 1e9
    out.say(f"peaks measured here: {flops:,.0f} GFLOP/s in a product, {rate:,.1f} GB/s in a copy")
    for model, sides in found.memory.items():
        peaks = [f"{side} {values['resident'] / 1e6:,.0f} MB" for side, values in sides.items()]
        out.say(f"{model}: peak memory {', '.join(peaks)}")
    out.note(dict.fromkeys(found.notes))


def _cells(row: Row) -> list[str]:
    def ms(times: dict[str, Times], how: str, *keys: str) -> list[str]:
        found = [getattr(times[how], key) if how in times else None for key in keys]
        return ["" if v is None else f"{v:.2f}" if v < 100 else f"{v:,.0f}" for v in found]

    return [
        row.model,
        row.task,
        str(row.batch),
        *ms(row.mlx, "compiled", "median", "p95", "p99"),
        *ms(row.mlx, "eager", "median"),
        *ms(row.torch, "eager", "median", "p95", "p99"),
        *ms(row.torch, "compiled", "median"),
        "" if row.ratio is None else f"{row.ratio:.2f}",
        f"{row.roofline_ms:.3g}",
    ]


def _expect(out: Output, as_markdown: bool) -> None:
    """The roofline of Apple's chips, computed from public figures."""
    from mlx_lvm.bench.roofline import CHIPS, Cost

    columns, rows, rooflines, works = ["chip", "GB/s", "TFLOP/s"], [], [], []
    for name in trained():
        cost = Cost.of(build(architecture(name).config_class()), context=5)
        works += [(name, "forward", 1, cost.forward(1)), (name, "train", 32, cost.step(32))]
    columns += [f"{name} {task} {batch}" for name, task, batch, _ in works]
    for chip in CHIPS:
        least = [found.roofline(chip.flops, chip.bandwidth) * 1e3 for *_, found in works]
        has = [chip.name, f"{chip.bandwidth / 1e9:.0f}", f"{chip.flops / 1e12:.1f}"]
        rows.append([*has, *(f"{value:.3f}" for value in least)])
        rooflines += [
            {"chip": chip.name, "model": name, "task": task, "batch": batch, "floor_ms": value}
            for (name, task, batch, _), value in zip(works, least, strict=True)
        ]
    if as_markdown:
        out.say("\n".join(markdown_table(columns, rows)))
    else:
        out.table("Roofline in milliseconds, computed from public figures, not measured", columns, rows)
    start = "what it costs to start each kernel, some tenths of a millisecond a forward pass"
    out.say(f"A real program adds {start}, and reaches no peak.")
    out.result({"computed": True, "rows": rooflines})
