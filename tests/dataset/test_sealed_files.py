"""Small sealed files of a dataset whose checksum is right and whose content is not: one line, never a traceback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from versions.versions_support import built

from generator.io.checksummed_json import checksummed, parse_checksummed
from generator.versions.check import check
from generator.versions.history.history import History
from generator.versions.working.status import status
from generator.versions.working.working_folder import stored_plan
from scenes.errors import StopdownError

ODD = ("NaN", "1e999", "9" * 5000, "[" * 5000 + "]" * 5000, '"\\ud800"')


@pytest.mark.parametrize("value", ODD, ids=["nan", "endless", "digits", "deep", "half a character"])
def test_json_that_cannot_be_written_again_is_damaged(tmp_path: Path, value: str) -> None:
    with pytest.raises(StopdownError):
        parse_checksummed(f'{{"check":"0","version":{value}}}\n'.encode(), "a file")
    (tmp_path / ".stopdown").mkdir()
    (tmp_path / ".stopdown/plan.json").write_text(f'{{"format":{value}}}')
    with pytest.raises(StopdownError):
        stored_plan(tmp_path)


def test_a_note_of_the_working_folder_with_other_entries_is_damaged(tmp_path: Path) -> None:
    history = built(tmp_path, 2)[0]
    note = tmp_path / ".stopdown/working.json"
    tree = json.loads(note.read_bytes())
    del tree["check"]
    odd = [{name: value for name, value in tree.items() if name != missing} for missing in tree]
    odd += [tree | {name: value} for name in (*tree, "next", "other") for value in (7, "../x", [], {"version": None})]
    for one in odd:
        note.write_bytes(checksummed(one))
        with pytest.raises(StopdownError):
            status(history)
        assert not check(History(tmp_path)).clean


def test_an_index_with_other_entries_is_made_anew(tmp_path: Path) -> None:
    history = built(tmp_path, 2)[0]
    for odd in ({}, {"files": 3}, {"files": {"clips/a.mp4": 3}}, {"files": {"README.md": [1, 2]}}):
        (tmp_path / ".stopdown/index.json").write_bytes(checksummed(odd))
        assert status(history).clean
