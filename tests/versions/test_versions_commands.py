"""The commands of the version history, as a person or a machine calls them."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner
from versions_support import built, changed, commit_clips, make_clips, origin, references, table, without

from generator.versions.commit import commit
from generator.versions.history.history import History
from scenes.errors import InputError, StopdownError

COMMANDS = ("log", "show", "status", "commit", "tag", "diff", "restore", "gc", "merge", "query")


def call(command: str, *words: object, code: int = 0) -> str:
    """Run a command and return what it printed; a StopdownError is raised, as `stopdown` shows it."""
    app = typer.Typer(add_completion=False)
    app.command()(importlib.import_module(f"generator.commands.{command}").command)
    result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})
    if isinstance(result.exception, StopdownError):
        raise result.exception
    assert result.exit_code == code, (result.output, result.exception)
    return result.output


def called_json(command: str, *words: object, code: int = 0) -> Any:
    return json.loads(call(command, *words, "--json", code=code))


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Return a dataset of two versions, in a folder with a space and an umlaut, the first shown."""
    history, clips, _ = built(tmp_path / "my dataset ü", 9)
    ids = list(clips)
    later = changed(without({**clips, **make_clips(history.store, 1, seed=5)}, ids[0]), ids[2], caption="[bold]words")
    plan = '{"clips":[],"recipe":{"name":"synthetic","render":{"samples":8}}}'
    commit(history, table(later), references(later), origin("the [second]", plan=plan))
    history.tag("v1", "latest~1")
    return history.path


def test_log_and_show(dataset: Path) -> None:
    lines = call("log", dataset).splitlines()
    assert "the [second]" in lines[1] and "v1" in lines[2] and len(lines) == 3
    found = called_json("log", dataset, "-n", "1")
    assert [version["message"] for version in found] == ["the [second]"]
    shown = called_json("show", dataset, "v1")
    assert shown["tags"] == ["v1"] and shown["id"] == found[0]["parents"][0]
    words = call("show", dataset)
    assert all(part in words for part in ("9 of 4 scenes", "synthetic (seed 0)", "shutter", "mean error", found[0]["content"]))


def test_diff(dataset: Path) -> None:
    words = call("diff", dataset)
    assert "1 added, 1 removed, 1 changed" in words and "-> [bold]words" in words and "recipe render.samples: 4 -> 8" in words
    found = called_json("diff", dataset, "latest", "v1")
    assert len(found["added"]) == len(found["removed"]) == 1 and found["changed"][0]["fields"][0]["before"] == "[bold]words"
    assert "no difference" in call("diff", dataset, "v1", "v1")
    assert "and 2 more" in call("diff", dataset, "latest", "v1", "-n", "1") or "added" in call("diff", dataset, "-n", "1")


def test_status_and_restore(dataset: Path) -> None:
    assert "clean" in call("status", dataset) and "the latest is" in call("status", dataset)
    call("restore", dataset, "latest")
    assert called_json("status", dataset)["clean"]
    (dataset / "clips" / "mine.mp4").write_bytes(b"mine")
    assert "untracked" in call("status", dataset, code=1)
    assert called_json("status", dataset, "--thorough", code=1)["differences"][0]["path"] == "clips/mine.mp4"
    with pytest.raises(InputError, match="--force"):
        call("restore", dataset, "v1")
    assert "lost: clips/mine.mp4" in call("restore", dataset, "v1", "--force")
    assert called_json("restore", dataset, "v1") == {
        "version": History(dataset).version("v1").id, "written": 0, "removed": 0, "lost": []
    }  # fmt: skip


def test_commit(dataset: Path) -> None:
    call("restore", dataset, "latest")
    assert "nothing to commit" in call("commit", dataset, "-m", "x")
    next((dataset / "clips").glob("*.txt")).write_text("mine\n")
    assert called_json("commit", dataset, "-m", "mine", "--splits", "0.5,0.25,0.25")["splits"]["train"] == 0.5
    assert "clean" in call("status", dataset)
    with pytest.raises(InputError, match="needs a message"):
        call("commit", dataset)
    for shares in ("0.5", "a,b,c", "0.5,0.5,0.5"):
        with pytest.raises(InputError, match="three shares"):
            call("commit", dataset, "-m", "x", "--splits", shares)


def test_tag(dataset: Path) -> None:
    assert "v2 is version" in call("tag", dataset, "v2")
    assert [tag["name"] for tag in called_json("tag", dataset)] == ["v1", "v2"] and "v2" in call("tag", dataset)
    with pytest.raises(InputError, match="--force"):
        call("tag", dataset, "v1", "latest")
    call("tag", dataset, "v1", "latest", "--force")
    call("tag", dataset, "v1", "--delete")
    assert [tag["name"] for tag in called_json("tag", dataset)] == ["v2"]
    with pytest.raises(InputError, match="needs the name"):
        call("tag", dataset, "--delete")


def test_gc_and_merge(dataset: Path, tmp_path: Path) -> None:
    History(dataset).store.put(b"garbage")
    assert "would remove 1 objects" in call("gc", dataset, "--dry-run", "--grace", "0")
    assert called_json("gc", dataset, "--grace", "0")["objects"] == 1
    other, clips, _ = built(tmp_path / "other", 3, seed=7)
    assert "12 clips" in call("merge", dataset, other.path)
    assert called_json("merge", dataset, other.path)["summary"]["clips"] == 9 + len(clips)


def test_query(dataset: Path, tmp_path: Path) -> None:
    found = json.loads(call("query", dataset, "layer = 9", "--format", "json"))
    assert call("query", dataset, "layer = 9", "--format", "ids").split() == [row["clip_id"] for row in found] != []
    assert "9 rows" in call("query", dataset, "layer > 0", "--ref", "v1")
    counts = call("query", dataset, "SELECT layer, count(*) AS n FROM clips GROUP BY layer", "--format", "csv")
    assert counts.startswith('"layer","n"')
    with pytest.raises(InputError, match="columns: clip_id"):
        call("query", dataset, "nope = 1")
    with pytest.raises(InputError, match="needs the column clip_id"):
        call("query", dataset, "SELECT 1 AS x", "--format", "ids")
    with pytest.raises(InputError, match="no version and no labels"):
        (tmp_path / "empty" / ".stopdown").mkdir(parents=True)
        call("query", tmp_path / "empty", "layer = 9")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_what_it_takes_and_what_is_no_dataset(command: str, tmp_path: Path) -> None:
    assert "DATASET" in call(command, "--help")
    words = {"query": ["layer = 9"], "restore": ["latest"], "merge": [tmp_path], "commit": ["-m", "x"]}.get(command, [])
    with pytest.raises(InputError, match="is not a Stopdown dataset"):
        call(command, tmp_path, *words)
    assert list(tmp_path.iterdir()) == []


def test_a_dataset_without_versions(tmp_path: Path) -> None:
    history = History(tmp_path)
    make_clips(history.store, 3)
    assert "no version yet" in call("log", tmp_path) and "no version yet" in call("status", tmp_path)
    for command, words in (("show", []), ("diff", []), ("restore", ["latest"]), ("tag", ["v1"])):
        with pytest.raises(InputError, match="has no version yet"):
            call(command, tmp_path, *words)
    assert commit_clips(history, make_clips(history.store, 3)).parents == ()
