"""Finds a backbone by folder, hub id, `owner/name@revision`, `tiny` or `tiny-random`, and says in one line what is wrong."""

from __future__ import annotations

import os
import re
from pathlib import Path

from scenes.errors import InputError, closest
from trainer.backbones.backbone_files import INDEX, check_index, other_layout
from trainer.backbones.hub import hub_errors, split_revision

TINY = re.compile(r"tiny-random(?::(\d+))?")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
BUNDLED = "tiny"
MODEL = Path(__file__).parent.parent / "tiny" / "model"  # what `make tiny` trained and this package ships
KNOWN = (
    BUNDLED,
    "tiny-random",
    "Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
    "Wan-AI/Wan2.1-T2V-14B-Diffusers",
    "Wan-AI/Wan2.2-T2V-A14B-Diffusers",
    "Wan-AI/Wan2.2-TI2V-5B-Diffusers",
)


def cache_folder() -> Path:
    """Return where built backbones are kept: `$XDG_CACHE_HOME/stopdown`, `~/.cache/stopdown` if that is not set."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stopdown"


def pinned_revision(name: str) -> dict[str, str]:
    """Return the option of `from_pretrained` that a name's revision is, as in `owner/name@v1`; none where it names none."""
    _, revision = split_revision(name)
    return {} if revision is None else {"revision": revision}


def locate_backbone(name: str, *, cache: Path | None = None, revision: str | None = None) -> str:
    """Return what `WanPipeline.from_pretrained` loads: a folder, or a hub id whose index was found.

    The revision that a name pins goes into `pinned_revision`; it may be given as `revision` instead.

    `tiny` is bundled; `tiny-random`, or `tiny-random:SEED`, is built in `cache` when it is not there yet. Raises InputError
    for a folder that is no WanPipeline, a name that is neither folder nor hub id, an unknown or closed repository, and an
    unreachable hub.
    """
    if tiny := TINY.fullmatch(name):
        from trainer.backbones.tiny_random import tiny_random  # needs torch, the rest of this module does not

        return str(tiny_random(cache if cache is not None else cache_folder(), seed=int(tiny[1] or 0)))
    folder = MODEL if name == BUNDLED else Path(name).expanduser()
    if folder.exists():
        if other := other_layout(folder, name):
            raise InputError(other)
        if not (folder / INDEX).is_file():
            raise InputError(f"backbone {name} is no diffusers pipeline: it has no {INDEX}; give a folder saved by WanPipeline")
        check_index(folder / INDEX, name)
        return str(folder)
    repository, pinned = split_revision(name)
    if HUB_ID.fullmatch(repository) is None:
        raise InputError(
            f"backbone '{name}' is neither a folder nor a hub id{closest(name, KNOWN)}; give a WanPipeline folder, "
            "a hub id such as Wan-AI/Wan2.1-T2V-1.3B-Diffusers (owner/name@revision pins one), or tiny, the bundled one"
        )
    if pinned is not None and revision not in (None, pinned):
        raise InputError(f"backbone {name} is asked for in revision '{revision}' as well; give one of them")
    check_index(_hub_index(repository, pinned or revision), name)
    return repository


def _hub_index(name: str, revision: str | None) -> Path:
    from huggingface_hub import hf_hub_download

    absent = f"repository {name} is no diffusers pipeline: it has no {INDEX}; its name may want -Diffusers"
    with hub_errors(f"backbone {name}", name, revision, absent=absent, near=closest(name, KNOWN)):
        return Path(hf_hub_download(name, INDEX, revision=revision))
