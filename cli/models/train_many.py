"""Several trainings of one command: every architecture on equal terms, or one with several seeds.

What is to be trained is written to `plan.json` first, so that `lvm train --resume FOLDER` goes on where a
stop left it.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from mlx_lvm.api.training import Recipe, start_named
from mlx_lvm.cli.models.compare import show
from mlx_lvm.cli.models.train_one import resume_locked, run
from mlx_lvm.cli.shared.common import Output
from mlx_lvm.core.files.disk import read_json, write_json
from mlx_lvm.core.result import JsonObject
from mlx_lvm.data.sampling import load_or_sample
from mlx_lvm.data.storage.reader import find_corpus, open_corpus
from mlx_lvm.errors import InvalidFile, IOFailed, LvmError
from mlx_lvm.evaluation.leaderboard import compare
from mlx_lvm.hub.load import load_model
from mlx_lvm.training.config import TrainConfig
from mlx_lvm.training.distributed import Group
from mlx_lvm.training.own_corpus import own_corpus, record
from mlx_lvm.training.run import CONFIG, claim
from mlx_lvm.training.session import start_run

PLAN, SUMMARY = "plan.json", "summary.json"


def train_many(
    recipes: dict[str, Recipe],
    kind: str,
    folder: Path | None,
    group: Group,
    out: Output,
    report_to: str | None,
) -> JsonObject:
    """The runs in folders of their names, then what they say together. `kind`: "all" or "seeds".

    Raises IOFailed where the folder holds a plan or a run already.
    """
    first = next(iter(recipes.values()))
    if group.rank == 0:
        folder = folder or claim("all" if kind == "all" else first.model, Path(first.train.corpus).stem)
        if (folder / PLAN).exists() or (folder / CONFIG).exists():
            remedy = f"Go on with `lvm train --resume {folder}`, or name another --out."
            raise IOFailed(f"{folder}: already holds runs. {remedy}")
        runs = {
            key: {"model": recipe.model, "sizes": recipe.sizes, "train": recipe.train.to_dict()}
            for key, recipe in recipes.items()
        }
        corpus = open_corpus(find_corpus(first.train.corpus))
        about = {"name": corpus.name, "sha256": corpus.sha256, **record(first.train.corpus, folder)}
        write_json(folder / PLAN, {"kind": kind, "corpus": about, "runs": runs})
    return _train(recipes, kind, folder or Path("runs"), group, out, report_to)


def resume_many(
    folder: Path, corpus: str | None, group: Group, out: Output, report_to: str | None
) -> JsonObject:
    """What a plan has left over, on the plan's own corpus or where `corpus` says that it lies now.

    Raises InvalidFile where the plan does not parse or the corpus is another one.
    """
    text = json.dumps(read_json(folder / PLAN)) if group.rank == 0 else ""
    try:
        plan = json.loads(group.broadcast_text(text))
        first = next(iter(plan["runs"].values()))
        reference = corpus or own_corpus(folder, {"corpus": plan.get("corpus", {}), "train": first["train"]})
        recipes = {}
        for key, one in plan["runs"].items():
            config = TrainConfig.from_dict({**one["train"], "corpus": reference})
            recipes[key] = Recipe(one["model"], one["sizes"], config)
        digest = open_corpus(find_corpus(reference)).sha256
        if digest != plan.get("corpus", {}).get("sha256", digest):
            began = "the one that these runs began with"
            raise InvalidFile(f"corpus {reference} is not {began} (its sha256 differs)")
        return _train(recipes, plan["kind"], folder, group, out, report_to)
    except (LvmError, TypeError, KeyError, AttributeError) as error:
        if isinstance(error, LvmError) and not isinstance(error, InvalidFile):
            raise
        raise InvalidFile(f"{folder / PLAN}: {error}") from None


def _train(
    recipes: dict[str, Recipe], kind: str, folder: Path, group: Group, out: Output, report_to: str | None
) -> JsonObject:
    summaries = {}
    for key, recipe in recipes.items():
        own = folder / key
        if group.any(group.rank == 0 and (own / SUMMARY).exists()):
            summaries[key] = read_json(own / SUMMARY) if group.rank == 0 else {}
            out.say(f"{key}: finished before, {own}")
            continue
        if group.any(group.rank == 0 and (own / CONFIG).exists()):
            trainer = resume_locked(own, {"corpus": recipe.train.corpus}, False, group)
        else:
            trainer = start_run(*recipe, own, group, start_named(recipe.train.start_from))
        summaries[key] = run(trainer, out, report_to=report_to, again=folder)
    if group.rank:
        return {}
    config = next(iter(recipes.values())).train
    return _leaderboard(folder, summaries, config, out) if kind == "all" else _spread(folder, summaries, out)


def _leaderboard(folder: Path, summaries: JsonObject, config: TrainConfig, out: Output) -> JsonObject:
    with out.status() as progress:
        data = load_or_sample(config.corpus, config.context, config.split_seed)
        result = compare([load_model(folder / name) for name in summaries], data, progress=progress)
    out.say()
    show(out, result)
    return {"runs": list(summaries.values()), "comparison": result.to_dict()}


def _spread(folder: Path, summaries: JsonObject, out: Output) -> JsonObject:
    """Mean and standard deviation of what the seeds reach."""
    rows = {key.replace("-", " "): reached(summary) for key, summary in summaries.items()}
    name = next(iter(summaries.values()))["model"]
    table = np.array([list(row.values()) for row in rows.values()])
    columns = list(next(iter(rows.values())))
    mean, spread = table.mean(axis=0), table.std(axis=0, ddof=1)
    cells = [
        [label, *(f"{value:.4f}" for value in row)]
        for label, row in zip([*rows, "mean", "std"], [*table, mean, spread], strict=True)
    ]
    out.table(f"{len(rows)} seeds of {name}", ["", *columns], cells, bold=len(rows))
    return {
        "run": str(folder),
        "model": name,
        "runs": list(summaries.values()),
        "mean": dict(zip(columns, mean.tolist(), strict=True)),
        "std": dict(zip(columns, spread.tolist(), strict=True)),
    }


def reached(summary: JsonObject) -> dict[str, float]:
    """What a run reached, in the figures that are compared across seeds."""
    test = summary["test"]["metrics"][summary["test"]["model"]]
    return {
        "val cosine": summary["val_cosine"],
        **({"val MRR": summary["val_mrr"]} if "val_mrr" in summary else {}),
        "test cosine": test["cosine"],
        "test centred": test["centred_cosine"],
        "test MRR": test["centred"]["mrr"],
        "test R@5": test["centred"]["recall_at_5"],
    }
