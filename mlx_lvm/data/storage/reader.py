"""Opening a corpus: strict about headers, offsets, names, cards and shards, before any vector is read."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mlx_lvm.core.files.disk import allow_open_files, read_json
from mlx_lvm.core.files.safetensors import SafeFile, open_safetensors
from mlx_lvm.data.card import PROBE_SENTENCES, EncoderCard
from mlx_lvm.data.names import check_names, normal
from mlx_lvm.data.storage.mapped import AS_DRAWN, MappedCorpus, Shard, rest_digest
from mlx_lvm.data.storage.rows import SHOWN, RowCheck
from mlx_lvm.errors import InvalidFile, IOFailed, LvmError, Problems, UsageError, nearest, reason

FORMAT = "mlx-lvm-corpus"
INDEX_FORMAT = "mlx-lvm-corpus-index"
VERSION = "1"
INDEX = "corpus.json"
VECTOR_DTYPES = ("F32", "F16", "BF16", "I8")
PROVENANCE = ("chunking", "source", "licence")
MAX_NAMES = 256 << 20  # bytes of the names of one file's documents
SMALL_TENSORS = {  # (dtype, rank) of all but the vectors
    "document_offsets": ("I64", 1),
    "document_names": ("U8", 1),
    "document_split": ("U8", 1),
    "scales": ("F32", 1),
    "probes": ("F32", 2),
}


def open_corpus(path: str | Path) -> MappedCorpus:
    """Open a corpus file or folder. Raises InvalidFile with all problems of headers, offsets and names."""
    path = Path(path)
    problems = Problems(f"corpus {path}")
    files = _indexed(path, problems) if path.is_dir() else [open_safetensors(path)]
    labels = [f"{file.path.name}: " if len(files) > 1 else "" for file in files]
    for file in files:
        _check_format(file)
    for file, label in zip(files, labels, strict=True):
        _check_tensors(file, problems, label)
    problems.raise_if_any(InvalidFile)

    shards: list[Shard] = []
    first_row = 0
    for file, label in zip(files, labels, strict=True):
        offsets, names = np.array(file.numpy("document_offsets")), _names(file, problems, label)
        shard = Shard(file.path, file, offsets, names, first_row)
        check_documents(offsets, names, shard.rows, problems, label)
        shards.append(shard)
        first_row += shard.rows
        if file.metadata.get("sha256_rest", recorded := rest_digest(file)) != recorded:
            problems.add(
                f"{label}names, offsets, scales or probes do not have the sha256 recorded with them: "
                "damaged. Fetch the file again."
            )
    cards = [_card(file, problems) for file in files]
    _check_alike(shards, cards, problems)
    problems.raise_if_any(InvalidFile)
    first = files[0]
    splits = [file.numpy("document_split") for file in files if "document_split" in file.tensors]
    made = MappedCorpus(
        name=path.name.removesuffix(".safetensors"),
        path=path,
        shards=tuple(shards),
        offsets=np.concatenate([[0], *(shard.first_row + shard.offsets[1:] for shard in shards)]),
        names=tuple(name for shard in shards for name in shard.names),
        card=cards[0],
        provenance={key: first.metadata.get(key, "") for key in PROVENANCE},
        assigned=np.concatenate(splits) if splits else None,
        as_drawn=first.metadata.get("rows") == AS_DRAWN,
    )
    if made.made_unit and made.card.normalised in ("", "none"):  # whatever the encoder did, these rows are
        made = replace(made, card=replace(made.card, normalised="L2"))
    return made


def _indexed(folder: Path, problems: Problems) -> list[SafeFile]:
    """The shards that a folder's index names, each there and of the size the index says."""
    index = folder / INDEX
    if not index.is_file():
        raise InvalidFile(
            f"{folder}: a folder without {INDEX}; not a sharded corpus. Give a corpus file, or `lvm embed` "
            "the folder's documents."
        )
    values = read_json(index)
    said = (values.get("format"), values.get("format_version")) if isinstance(values, dict) else ()
    if said != (INDEX_FORMAT, VERSION):
        raise InvalidFile(f"{index}: not the index of a corpus of format {VERSION}")
    entries = values.get("shards")
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise InvalidFile(f"{index}: 'shards' must be a list of at least one shard")
    allow_open_files(2 * len(entries), f"corpus {folder}")  # each shard is mapped, and read by blocks
    files: list[SafeFile] = []
    for number, entry in enumerate(entries):
        name = entry.get("file")
        if not isinstance(name, str) or name != Path(name).name or name in ("", ".", "..") or "\0" in name:
            problems.add(
                f"{INDEX}: shard {number}: file {name!r} is not the plain name of a file in this folder"
            )
            continue
        try:
            file = open_safetensors(folder / name)
        except (InvalidFile, IOFailed) as error:
            problems.add(f"shard {number}: {error}")
            continue
        files.append(file)
        vectors = file.tensors.get("vectors")
        found = vectors.shape[0] if vectors and vectors.shape else None
        if entry.get("vectors") != found:
            problems.add(
                f"{name} holds {found} vectors, {INDEX} says {entry.get('vectors')!r}: not the file that was "
                "written"
            )
        if entry.get("sha256") != file.metadata.get("sha256"):
            problems.add(f"{name} has another sha256 than {INDEX} says: not the file that was written")
    twice = [name for name, count in Counter(file.path.name for file in files).items() if count > 1]
    if twice:
        problems.add(f"{INDEX} names shards twice: {', '.join(twice[:SHOWN])}")
    problems.raise_if_any(InvalidFile)
    return files


def _check_format(file: SafeFile) -> None:
    said, version = file.metadata.get("format"), file.metadata.get("format_version")
    if said != FORMAT:
        raise InvalidFile(
            f"{file.path}: not a corpus (metadata 'format' is {said!r}, expected '{FORMAT}'). "
            "`lvm data convert` reads other formats."
        )
    if version != VERSION:
        what = f"corpus format {version!r}; this version reads {VERSION}. Update mlx-lvm."
        raise InvalidFile(f"{file.path}: {what}")


def _check_tensors(file: SafeFile, problems: Problems, label: str) -> None:
    """Names, dtypes and shapes, before any data is looked at."""
    known = {"vectors", *SMALL_TENSORS}
    for name in sorted(set(file.tensors) - known):
        problems.add(f"{label}unknown tensor '{name}'.{nearest(name, sorted(known))}")
    missing = sorted({"vectors", "document_offsets", "document_names"} - set(file.tensors))
    problems.found += [f"{label}tensor '{name}' is missing" for name in missing]
    if missing:
        return
    vectors = file.tensors["vectors"]
    if vectors.dtype not in VECTOR_DTYPES or len(vectors.shape) != 2:
        problems.add(
            f"{label}'vectors' is {vectors.dtype} {list(vectors.shape)}; expected [N, dim] in "
            f"{', '.join(VECTOR_DTYPES)}"
        )
    elif 0 in vectors.shape:
        problems.add(f"{label}'vectors' is empty {list(vectors.shape)}")
    for name, (dtype, rank) in SMALL_TENSORS.items():
        info = file.tensors.get(name)
        if info and (info.dtype != dtype or len(info.shape) != rank):
            problems.add(
                f"{label}'{name}' is {info.dtype} {list(info.shape)}; expected {dtype} with {rank} "
                "dimension(s)"
            )
    if (vectors.dtype == "I8") != ("scales" in file.tensors):
        problems.add(f"{label}'scales' belongs with I8 vectors, and only with them")
    scales, probes, split = (file.tensors.get(name) for name in ("scales", "probes", "document_split"))
    if scales and scales.shape[:1] != vectors.shape[:1]:
        problems.add(f"{label}'scales' has {list(scales.shape)} entries for vectors {list(vectors.shape)}")
    if probes and probes.shape != (len(PROBE_SENTENCES), *vectors.shape[1:]):
        problems.add(
            f"{label}'probes' is {list(probes.shape)}; expected a vector for each of {len(PROBE_SENTENCES)} "
            "sentences, as wide as 'vectors'"
        )
    if split and (split.shape[0] + 1,) != file.tensors["document_offsets"].shape:
        problems.add(f"{label}'document_split' has {split.shape[0]} entries, one a document expected")
    if file.tensors["document_names"].end - file.tensors["document_names"].start > MAX_NAMES:
        problems.add(f"{label}'document_names' is longer than {MAX_NAMES:,} bytes")


def _names(file: SafeFile, problems: Problems, label: str) -> list[str]:
    try:
        names = json.loads(bytes(file.numpy("document_names")).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        problems.add(f"{label}'document_names' is not JSON ({error})")
        return []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        problems.add(f"{label}'document_names' is not a list of names")
        return []
    return [normal(name) for name in names]


def _card(file: SafeFile, problems: Problems) -> EncoderCard:
    dim = file.tensors["vectors"].shape[1]
    probes = np.array(file.numpy("probes")) if "probes" in file.tensors else None
    try:
        values: Any = json.loads(file.metadata.get("encoder_card", "{}"))
        if not isinstance(values, dict):
            raise ValueError("not an object")
        card = EncoderCard.from_dict({"dim": dim, **values, "probes": probes})
    except (ValueError, LvmError, RecursionError) as error:
        problems.add(f"encoder card does not parse ({error})")
        return EncoderCard(dim=dim)
    if card.dim != dim:
        problems.add(f"vectors of {dim} dimensions under an encoder card that says {card.dim}")
    if probes is not None:
        check = RowCheck("probe {}".format)
        check.add(0, probes, None)
        problems.found += check.problems()
    return card


def check_documents(
    offsets: np.ndarray, names: list[str], rows: int, problems: Problems, label: str = ""
) -> None:
    """Offsets complete and increasing, one fit name a document."""
    if len(offsets) < 2:
        problems.add(f"{label}no documents")
        return
    if offsets[0] != 0 or offsets[-1] != rows:
        problems.add(
            f"{label}document offsets run from {offsets[0]} to {offsets[-1]}; expected 0 to {rows}, so that "
            "every row has a document"
        )
    for d in np.flatnonzero(offsets[1:] <= offsets[:-1])[:SHOWN]:
        problems.add(
            f"{label}document {d} ends at row {offsets[d + 1]} and starts at {offsets[d]}: offsets must "
            "increase"
        )
    if len(names) != len(offsets) - 1:
        problems.add(f"{label}{len(names)} document names for {len(offsets) - 1} documents")
    check_names(names, problems, label)


def _check_alike(shards: list[Shard], cards: list[EncoderCard], problems: Problems) -> None:
    """Shards of one corpus have one dim, one dtype and one card, and no document twice."""
    first = shards[0].file.tensors["vectors"]
    for shard, card in zip(shards[1:], cards[1:], strict=True):
        info = shard.file.tensors["vectors"]
        if info.shape[1] != first.shape[1] or info.dtype != first.dtype:
            has = f"{shards[0].path.name} has {first.dtype} of {first.shape[1]}"
            problems.add(f"{shard.path.name}: vectors {info.dtype} of {info.shape[1]} dimensions, {has}")
            continue
        for difference in card.differences(cards[0]):
            problems.add(f"{shard.path.name}: another encoder than {shards[0].path.name}: {difference}")
        if ("document_split" in shard.file.tensors) != ("document_split" in shards[0].file.tensors):
            problems.add(f"{shard.path.name}: a recorded split must be in every shard or in none")
    if len(shards) > 1:
        check_names([name for shard in shards for name in shard.names], problems)
    for shard in shards:
        if "document_split" in shard.file.tensors and (shard.file.numpy("document_split") > 2).any():
            problems.add(f"{shard.path.name}: 'document_split' holds numbers other than 0, 1, 2")


def find_corpus(reference: str | Path) -> Path:
    """The path of a shipped corpus by name, or the path itself; `~` is the user's folder.

    Raises UsageError, naming the nearest, where it is neither, and where it is an address.
    """
    from mlx_lvm import weights

    shipped = weights.corpora()
    text = str(reference)
    if text in shipped:
        return shipped[text]
    if "://" in text:
        raise UsageError(f"'{text[:200]}' is an address: download the corpus, then give the path of its file")
    try:
        path = Path(reference).expanduser()
        there = path.exists()
    except (OSError, ValueError, RuntimeError) as error:
        raise UsageError(f"'{text[:200]}' is no path ({reason(error)})") from None
    if not there and path.suffix == "" and path.name == text:
        raise UsageError(
            f"unknown corpus '{text}'.{nearest(text, list(shipped))} Or give the path of a corpus file or "
            "folder."
        )
    return path
