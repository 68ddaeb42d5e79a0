"""`stopdown status`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from generator.commands.options import Json
from generator.commands.version_options import DatasetFolder, print_json
from generator.console.terminal import Console
from generator.store.splits import Leak
from generator.versions.history.history import History
from generator.versions.reading.dataset import Dataset
from generator.versions.reading.leaks import leaks
from generator.versions.working.status import Status, status

_SHOWN = 50


def command(
    dataset: DatasetFolder,
    thorough: Annotated[
        bool, typer.Option("--thorough", help="Hash every file, also if its size and time are unchanged.")
    ] = False,
    check_leaks: Annotated[
        bool, typer.Option("--leaks", help="Also look for scenes and near-identical first frames that are in two splits.")
    ] = False,
    json: Json = False,
) -> None:
    """List the differences between the working folder and its version. Exit code 1 if there are any."""
    history = History.open(dataset)
    state = status(history, thorough=thorough)
    found = leaks(Dataset(history, state.version)) if check_leaks and state.version is not None else []
    if json:
        print_json(_tree(state, found, check_leaks))
    else:
        _print(Console(), state, found, check_leaks)
    if found or not (state.clean or state.version is None):
        raise typer.Exit(1)


def _tree(state: Status, found: list[Leak], checked: bool) -> dict[str, object]:
    return {
        "version": None if state.version is None else state.version.id,
        "head": state.head,
        "clean": state.clean,
        "restoring": state.restoring,
        "other_plan": state.other_plan,
        "differences": [asdict(difference) for difference in state.differences],
        "leaks": [asdict(leak) for leak in found] if checked else None,
    }


def _print(console: Console, state: Status, found: list[Leak], checked: bool) -> None:
    if state.version is None:
        console.print("no version yet; `stopdown commit` makes the first")
        return
    behind = "" if state.version.id == state.head else f", the latest is {(state.head or '')[:12]}"
    console.print(f"version {state.version.short} ({state.version.message.splitlines()[0]}){behind}", markup=False)
    if state.restoring is not None:
        console.print(f"a restore was cut off; `stopdown restore DATASET {state.restoring[:12]}` finishes it")
    if state.other_plan:
        console.print("the plan is of a build that is not committed")
    for difference in state.differences[:_SHOWN]:
        console.print(f"  {difference.kind:<10} {difference.path}: {difference.detail}", markup=False, soft_wrap=True)
    if len(state.differences) > _SHOWN:
        console.print(f"  and {len(state.differences) - _SHOWN} more; --json lists all")
    for leak in found:
        pair = " and ".join(f"{clip} ({split})" for clip, split in zip(leak.clip_ids, leak.splits, strict=True))
        console.print(f"  leak       {pair}: {leak.reason}", markup=False, soft_wrap=True)
    if checked and not found:
        console.print("no scene and no near-identical first frame stands in two splits")
    console.print("clean" if state.clean else f"{len(state.differences)} files differ")
