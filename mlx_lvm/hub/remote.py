"""Models on the Hugging Face Hub: fetched by the name `user/repo`, and pushed.

`huggingface_hub` does it, with its cache and environment: HF_HOME, HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mlx_lvm.errors import InvalidFile, LvmError, SetupInvalid, UsageError, needing, one_line

FILES = ("model.safetensors", "config.json", "README.md")
NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)


def is_remote(reference: str | Path) -> bool:
    """Whether a name can only be the Hub's: `user/repo`, and no local path begins so."""
    text = str(reference)
    if not isinstance(reference, str) or not NAME.fullmatch(text) or text.endswith(".safetensors"):
        return False
    return not Path(text.split("/")[0]).exists()


def fetch(repo: str, revision: str | None = None) -> Path:
    """The folder of a model of the Hub, in its cache on this machine: see `FILES`.

    revision: a branch, a tag or a commit; default: the newest. Without a network, or with HF_HUB_OFFLINE=1,
    what the cache holds serves.

    Raises UsageError where the Hub has no such model or revision, SetupInvalid where it cannot be reached or
    the extra `hub` is missing, InvalidFile where the repository holds no model of ours.
    """
    hub = _client(repo)
    try:
        folder = Path(hub.snapshot_download(repo, revision=revision, allow_patterns=list(FILES)))
    except Exception as error:  # a dozen kinds, and those of the HTTP library under it
        raise _in_words(error, repo, revision) from None
    if not (folder / FILES[0]).exists():
        raise InvalidFile(
            f"{repo} on the Hub: it holds no {FILES[0]}, so it is no model that `lvm export` wrote"
        )
    return folder


def push(folder: str | Path, repo: str, *, private: bool = False, message: str = "Model") -> str:
    """Upload the files of an exported folder in one commit, and make the repository if need be. Returns its
    address.

    private: of a new repository; one that is there stays as it is

    Raises InvalidFile where a file is missing, UsageError for a name that is not `user/repo`, SetupInvalid
    where nobody is logged in, who is may not write, or the Hub cannot be reached.
    """
    if not NAME.fullmatch(repo):
        raise UsageError(f"--push {repo}: expected user/repo")
    missing = [name for name in FILES if not (Path(folder) / name).is_file()]
    if missing:
        raise InvalidFile(
            f"{folder}: no {', '.join(missing)}; `lvm export` writes a folder that can be pushed"
        )
    hub = _client(repo)
    if hub.get_token() is None:
        raise SetupInvalid(f"{repo}: not logged in to the Hub. Run: hf auth login, or set HF_TOKEN")
    api = hub.HfApi(library_name="mlx-lvm")
    paths = {name: str(Path(folder) / name) for name in FILES}
    files = [hub.CommitOperationAdd(path_in_repo=k, path_or_fileobj=v) for k, v in paths.items()]
    try:
        address = str(api.create_repo(repo, private=private or None, exist_ok=True))
        api.create_commit(repo, files, commit_message=message)
    except Exception as error:
        raise _in_words(error, repo, None) from None
    return address


def _client(repo: str) -> Any:
    with needing("hub", f"{repo}: the Hub needs huggingface_hub"):
        import huggingface_hub
        import huggingface_hub.errors
    return huggingface_hub


def _in_words(error: Exception, repo: str, revision: str | None) -> LvmError:
    """What went wrong with the Hub, and what to do."""
    from huggingface_hub import constants, errors

    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError):
        return SetupInvalid(
            f"{repo} is gated: accept its terms at {constants.ENDPOINT}/{repo}, then hf auth login"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return UsageError(f"{repo} on the Hub has no revision '{revision}'")
    if isinstance(error, errors.RepositoryNotFoundError):
        return UsageError(
            f"no local file or folder and no model of the Hub is named '{repo}'. If it is private: hf auth "
            "login"
        )
    if status in (401, 403):
        return SetupInvalid(
            f"{repo}: the Hub refuses ({status}). Run hf auth login with a token that may write there"
        )
    if isinstance(error, errors.HFValidationError):
        return UsageError(f"'{repo}' is not a name of the Hub: {error}")
    why = one_line(error)
    if status is not None:
        return SetupInvalid(f"{repo}: the Hub answers {status} ({why}). Try again later")
    if constants.HF_HUB_OFFLINE:
        return SetupInvalid(
            f"{repo} is not in the cache, and HF_HUB_OFFLINE is set: unset it to fetch the model"
        )
    return SetupInvalid(
        f"{repo} is not in the cache, and the Hub cannot be reached ({why}). Check the network, or give a "
        "folder"
    )
