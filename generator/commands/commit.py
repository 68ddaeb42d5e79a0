"""`stopdown commit`."""

from __future__ import annotations

from typing import Annotated

import typer
from pydantic import ValidationError

from generator.commands.options import Json
from generator.commands.version_options import DatasetFolder, Message, print_json, version_json
from generator.console.terminal import Console
from generator.store.splits import SplitRatios
from generator.versions.commit_folder import commit_folder
from generator.versions.history.history import History
from scenes.errors import InputError


def command(
    dataset: DatasetFolder,
    message: Message = "",
    splits: Annotated[
        str | None,
        typer.Option(
            "--splits",
            metavar="TRAIN,VALIDATION,TEST",
            help="Shares of the scenes, such as 0.8,0.1,0.1; as before if not given.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Make the working folder the next version.

    labels.parquet lists the clips. If you delete an .mp4, its clip is removed; if you edit a .txt, it is the new caption.
    """
    history = History.open(dataset)
    before = history.refs.head()
    version = commit_folder(history, message, splits=_ratios(splits))
    if json:
        print_json({"new": version.id != before, **version_json(version)})
    elif version.id == before:
        Console().print(f"nothing to commit; the folder is version {version.short}")
    else:
        Console().print(f"version {version.short}: {version.summary.clips:,} clips")


def _ratios(words: str | None) -> SplitRatios | None:
    if words is None:
        return None
    try:
        train, validation, test = (float(word) for word in words.split(","))
        return SplitRatios(train=train, validation=validation, test=test)
    except (ValueError, ValidationError):
        raise InputError(f"--splits '{words}' is no split; give three shares that sum to 1, as in 0.8,0.1,0.1") from None
