"""Adapters, datasets and backbones by hub id and revision, `owner/name@revision`: fetched once, then read from the local cache.

Of adapters and datasets a revision must be named, so that the same words mean the same bytes: a tag, or a commit, which needs
no network once it is there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from scenes.errors import InputError

PINNED = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)@(?P<revision>[\w.][\w./-]*)")
BRANCHES = ("main", "master", "HEAD")
ADAPTER_FILES = ("control.json", "README.md", "*.safetensors")  # nothing else of a repository is fetched


def locate_adapter(given: str | Path) -> Path:
    """Return an adapter's folder or file: as given, or the local copy of `owner/name@revision` on the hub."""
    return _locate(given, "model", list(ADAPTER_FILES))


def locate_dataset(given: str | Path) -> Path:
    """Return a dataset's folder: as given, or the local copy of `owner/name@revision` on the hub."""
    return _locate(given, "dataset", None)


def split_revision(given: str | Path) -> tuple[str, str | None]:
    """Return id and revision of `owner/name@revision`, anything else and what lies on the disk as it is, with None.

    Raises InputError for a branch, whose files change.
    """
    pinned = PINNED.fullmatch(str(given))
    if pinned is None or Path(given).exists():
        return str(given), None
    if pinned["revision"] in BRANCHES:
        raise InputError(f"{given}: '{pinned['revision']}' is a branch, whose files change; give a tag or a commit")
    return pinned["name"], pinned["revision"]


def repository(given: str) -> str:
    """Return the id of `owner/name@revision`, anything else as it is: for what knows repositories alone."""
    pinned = PINNED.fullmatch(given)
    return given if pinned is None else pinned["name"]


def _locate(given: str | Path, kind: Literal["model", "dataset"], patterns: list[str] | None) -> Path:
    """Return a path; raises InputError in one line for a repository or revision that is not there, closed or out of reach."""
    name, revision = split_revision(given)
    if revision is None:
        return Path(given)
    from huggingface_hub import snapshot_download

    words = "adapter" if kind == "model" else "dataset"
    with hub_errors(f"{words} {given}", name, revision):
        return Path(snapshot_download(name, repo_type=kind, revision=revision, allow_patterns=patterns))


@contextmanager
def hub_errors(
    what: str, name: str, revision: str | None, *, absent: str = "it lacks a file", near: str = ""
) -> Iterator[None]:
    """Say in one line why the hub did not give what was asked for.

    `absent` is said of a repository that lacks the file, `near` after the name of one that is not there.
    What it wraps raises InputError, in one line, for what a hub or a network can refuse.
    """
    from huggingface_hub import errors as hub

    try:
        yield
    except hub.GatedRepoError as error:
        raise InputError(f"{what} is gated; accept its terms on the hub and log in with 'hf auth login'") from error
    except hub.RepositoryNotFoundError as error:
        raise InputError(f"the hub has no repository {name}, or none open to you{near}") from error
    except hub.RevisionNotFoundError as error:
        raise InputError(f"{what}: the hub has no revision '{revision}' of {name}; give a tag or commit of it") from error
    except (hub.LocalEntryNotFoundError, hub.OfflineModeIsEnabled) as error:
        raise InputError(
            f"{what} is not in the local hub cache and the hub cannot be reached; connect, or give a local folder"
        ) from error
    except hub.EntryNotFoundError as error:
        raise InputError(f"{what}: {absent}") from error
    except (hub.HfHubHTTPError, OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"{what} cannot be fetched from the hub ({first}); try again, or give a local folder") from error
