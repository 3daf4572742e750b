"""`lvm bench`: MLX and torch timed in turn on the same device, beside the least time that this machine needs."""

from __future__ import annotations

import json as json_module
import tempfile
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import typer

from mlx_lvm.cli.common import Json, Output
from mlx_lvm.errors import UsageError, nearest

app = typer.Typer(add_completion=False, rich_markup_mode="rich")

MODELS = ("amn", "lstm", "gru", "transformer")
FORWARD, TRAIN = (1, 8, 32, 128, 1024), (32, 256, 1024)
COLUMNS = ("model", "task", "batch", "mlx ms", "p95", "p99", "eager", "torch ms", "p95", "p99", "compiled", "mlx/torch", "floor ms")
Panel = "What is timed"


@app.command()
def bench(
    model: Annotated[str, typer.Argument(help="Architecture at its default sizes: amn, lstm, gru, transformer, or all.")] = "amn",
    against: Annotated[str, typer.Option(metavar="torch|none", help="Whose times stand beside MLX's.", rich_help_panel=Panel)] = "torch",
    tasks: Annotated[
        str, typer.Option(metavar="forward|train|epoch|load", help="What to time; several with commas.", rich_help_panel=Panel)
    ] = "forward,train,epoch,load",
    batches: Annotated[str, typer.Option(help="Batch sizes, with commas, in place of the usual ones.", rich_help_panel=Panel)] = "",
    context: Annotated[int, typer.Option(min=1, max=100, help="Chunks that a window reads.", rich_help_panel=Panel)] = 5,
    corpus: Annotated[
        str, typer.Option("--corpus", "-c", metavar="NAME|FILE", help="Where windows come from.", rich_help_panel=Panel)
    ] = "sotu",
    dtype: Annotated[
        str, typer.Option(metavar="float32|bfloat16|float16", help="Precision of the forward pass.", rich_help_panel=Panel)
    ] = "float32",
    torch_compile: Annotated[
        bool, typer.Option("--torch-compile", help="Also torch.compile (a minute of compiling a model).", rich_help_panel=Panel)
    ] = False,
    device: Annotated[str, typer.Option(metavar="cpu|gpu", help="Default: the GPU where MLX has one.", rich_help_panel="How")] = "",
    threads: Annotated[int, typer.Option(min=0, help="Threads of both sides on a CPU; 0 takes all cores.", rich_help_panel="How")] = 0,
    tf32: Annotated[
        bool, typer.Option("--tf32", help="Let a GPU round the inputs of products, on both sides.", rich_help_panel="How")
    ] = False,
    seconds: Annotated[float, typer.Option(min=0.01, help="To spend on each program and cell.", rich_help_panel="How")] = 1.0,
    expect: Annotated[
        bool, typer.Option("--expect", help="Print what Apple's chips need at least, from public figures; times nothing.")
    ] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print the table as Markdown.", rich_help_panel="Output")] = False,
    json: Json = False,
) -> None:
    """Time MLX and torch in turn, each in its own process, on the same class of device; refuses to compare across devices.

    mlx ms is the compiled program that the library runs; torch ms is torch as people write it, eager. The floor is the larger of
    FLOPs / the fastest product and bytes / the fastest copy that either side reached here just before.

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
    sides = {"mlx": ("mlx_lvm.speed", "Mlx")}
    if against == "torch" and find_spec("torch") is None:
        out.notes.print("note: torch is not installed, so MLX stands alone; pip install 'mlx-lvm[parity]'")
    elif against == "torch":
        sides["torch"] = ("mlx_lvm.parity.speed", "Torch")
    found: dict[str, Any] = {"rows": [], "memory": [], "peaks": {}, "notes": []}
    for name in plan["models"]:
        with tempfile.TemporaryDirectory() as folder, out.notes.status("") as status:
            from mlx_lvm.timing import Bench, Options

            options = Options(name, folder, corpus, context, device, threads, dtype, tf32)
            with Bench(sides, options) as timing:
                _time(timing, plan["tasks"], seconds, torch_compile, found, status.update)
    _show(out, found, as_markdown)
    out.result(found)


def _plan(model: str, tasks: str, batches: str, against: str, dtype: str, device: str) -> dict[str, Any]:
    """Models and (task, batch sizes). Raises UsageError for what is not known."""
    known = {"forward": FORWARD, "train": TRAIN, "epoch": (32,), "load": (1,)}
    if model != "all" and model not in MODELS:
        raise UsageError(f"unknown model '{model}'.{nearest(model, [*MODELS, 'all'])}")
    chosen = [task.strip() for task in tasks.split(",") if task.strip()]
    for task in chosen:
        if task not in known:
            raise UsageError(f"unknown task '{task}'.{nearest(task, list(known))}")
    for value, allowed in ((against, ("torch", "none")), (dtype, ("float32", "bfloat16", "float16")), (device, ("", "cpu", "gpu"))):
        if value not in allowed:
            raise UsageError(f"'{value}': expected one of {', '.join(filter(None, allowed))}")
    if dtype != "float32" and set(chosen) - {"forward"}:
        raise UsageError(f"--dtype {dtype} is of the forward pass: add --tasks forward")
    try:
        sizes = tuple(int(part) for part in batches.split(",")) if batches else None
    except ValueError:
        sizes = (0,)
    if sizes is not None and min(sizes) < 1:
        raise UsageError(f"--batches {batches}: expected whole numbers above 0 with commas between them")
    return {"models": MODELS if model == "all" else (model,), "tasks": [(t, sizes if sizes and t != "load" else known[t]) for t in chosen]}


def _time(timing: Any, tasks: list[Any], seconds: float, torch_compile: bool, found: dict[str, Any], say: Any) -> None:
    """Every task on one model, into `found`."""
    from mlx_lvm.floor import work
    from mlx_lvm.timing import CONFIG, row

    shared = json_module.loads((Path(timing.options.folder) / CONFIG).read_text())
    config, name = SimpleNamespace(**shared["model"]), timing.options.model
    say(f"{name}: this machine's peaks")
    found["about"], found["peaks"] = timing.about, timing.peaks()
    for task, batches in tasks:
        hows: dict[str, list[str]] = {"mlx": ["compiled", "eager"] if task == "forward" else ["compiled"]}
        if "torch" in timing.workers:
            hows["torch"] = ["eager", "compiled"] if torch_compile and task in ("forward", "train") else ["eager"]
        for batch in batches:
            say(f"{name}: {task} at batch {batch}")
            times = timing.cell(task, batch, hows, seconds, found["notes"].append)
            least = work(config, shared["parameters"], task, batch, timing.options.context, shared["windows"])
            floor = least.floor(found["peaks"]["flops"], found["peaks"]["bytes"]) * 1e3
            found["rows"].append(row(name, task, batch, times, floor))
    found["memory"].append({"model": name, **timing.memory()})


def _show(out: Output, found: dict[str, Any], as_markdown: bool) -> None:
    rows = [_cells(row) for row in found["rows"]]
    if as_markdown:
        out.say("\n".join(["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS), *("| " + " | ".join(r) + " |" for r in rows)]))
    else:
        out.table("", COLUMNS, rows, left=2)
    for side, about in found["about"].items():
        out.say(f"{side} {about['version']} on {about['device']} {about['name']}, {about['threads']} threads")
    peaks = found["peaks"]
    out.say(f"peaks measured here: {peaks['flops'] / 1e9:,.0f} GFLOP/s in a product, {peaks['bytes'] / 1e9:,.1f} GB/s in a copy")
    for entry in found["memory"]:
        sides = {side: values for side, values in entry.items() if side != "model"}
        out.say(
            f"{entry['model']}: peak memory " + ", ".join(f"{side} {values['resident'] / 1e6:,.0f} MB" for side, values in sides.items())
        )
    for note in dict.fromkeys(found["notes"]):
        out.say(f"note: {note}", style="yellow")


def _cells(row: dict[str, Any]) -> list[str]:
    def ms(side: str, how: str, key: str) -> str:
        value = row[side].get(how, {}).get(key)
        return "" if value is None else f"{value:.2f}" if value < 100 else f"{value:,.0f}"

    return [
        row["model"],
        row["task"],
        str(row["batch"]),
        *(ms("mlx", "compiled", key) for key in ("median", "p95", "p99")),
        ms("mlx", "eager", "median"),
        *(ms("torch", "eager", key) for key in ("median", "p95", "p99")),
        ms("torch", "compiled", "median"),
        "" if row["ratio"] is None else f"{row['ratio']:.2f}",
        f"{row['floor_ms']:.3g}",
    ]


def _expect(out: Output, as_markdown: bool) -> None:
    """Floors of Apple's chips, computed from public figures."""
    from mlx_lvm.floor import CHIPS, forward_work, step_work
    from mlx_lvm.models import MODELS as ARCHITECTURES
    from mlx_lvm.models import build

    columns, rows, floors = ["chip", "GB/s", "TFLOP/s"], [], []
    works = []
    for name in MODELS:
        config = ARCHITECTURES[name][1]()
        parameters = build(config).parameter_count()
        works += [(name, "forward", 1, forward_work(config, parameters, 1)), (name, "train", 32, step_work(config, parameters, 32))]
    columns += [f"{name} {task} {batch}" for name, task, batch, _ in works]
    for chip in CHIPS:
        least = [found.floor(chip.flops, chip.bandwidth) * 1e3 for *_, found in works]
        rows.append([chip.name, f"{chip.bandwidth / 1e9:.0f}", f"{chip.flops / 1e12:.1f}", *(f"{value:.3f}" for value in least)])
        floors += [
            {"chip": chip.name, "model": name, "task": task, "batch": batch, "floor_ms": value}
            for (name, task, batch, _), value in zip(works, least, strict=True)
        ]
    if as_markdown:
        out.say("\n".join(["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns), *("| " + " | ".join(r) + " |" for r in rows)]))
    else:
        out.table("Least milliseconds, computed from public figures, not measured", columns, rows)
    out.say("A real program adds what it costs to start each kernel, some tenths of a millisecond a forward pass, and reaches no peak.")
    out.result({"computed": True, "rows": floors})
