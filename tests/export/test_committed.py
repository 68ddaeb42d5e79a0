"""Exports and cards of a committed dataset: what is held out stays out, whatever is left unsaid."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import pytest
import typer
from squares import FORMATS, build
from typer.testing import CliRunner

from generator.commands.export import command as export_command
from generator.export import EXPORTS
from generator.store.splits import SplitRatios
from generator.versions.commit_folder import commit_folder
from generator.versions.history.history import History
from generator.versions.reading.dataset import Dataset
from generator.versions.working.status import status

RATIOS = SplitRatios(train=0.5, validation=0.25, test=0.25)


@pytest.fixture
def committed(tmp_path: Path) -> Path:
    path = tmp_path / "squares"
    build(path)
    commit_folder(History(path), "first", splits=RATIOS)
    return path


def held_out(path: Path) -> dict[str, set[str]]:
    snapshot = Dataset.open(path)
    return {split: set(snapshot.split(split).clip_ids) for split in ("train", "validation", "test")}


def exported(path: Path, format: str, out: Path, *options: str) -> tuple[dict[str, object], str]:
    app = typer.Typer(add_completion=False)
    app.command()(export_command)
    done = CliRunner().invoke(app, [str(path), format, str(out), "--json", *options])
    if done.exception is not None:
        raise done.exception
    return json.loads(done.stdout), done.stderr


def clips_in(out: Path) -> set[str]:
    return {file.stem for file in out.rglob("*") if file.suffix in (".mp4", ".png")}


@pytest.mark.parametrize("format", sorted(name for name in FORMATS if not EXPORTS[name].several_splits))
def test_a_plain_export_of_a_committed_dataset_keeps_held_out_clips_out(committed: Path, tmp_path: Path, format: str) -> None:
    splits = held_out(committed)
    assert all(splits.values())
    report, said = exported(committed, format, tmp_path / "out")
    assert clips_in(tmp_path / "out") == splits["train"]
    assert report["left_out"] == {"test": len(splits["test"]), "validation": len(splits["validation"])} and not said


def test_a_folder_with_uncommitted_changes_is_split_all_the_same_and_says_so(committed: Path, tmp_path: Path) -> None:
    splits = held_out(committed)
    clip_id = min(splits["train"])
    (committed / "clips" / f"{clip_id}.txt").write_text("my own words\n")
    _, said = exported(committed, "diffsynth", tmp_path / "out")
    assert clips_in(tmp_path / "out") == splits["train"]
    assert f"what no version holds (clips/{clip_id}.txt)" in said
    _, said = exported(committed, "diffsynth", tmp_path / "held", "--ref", "latest")
    assert clips_in(tmp_path / "held") == splits["train"] and not said


def test_a_clone_that_shows_nothing_is_exported_from_its_store(committed: Path, tmp_path: Path) -> None:
    splits = held_out(committed)
    (committed / ".stopdown").rename(tmp_path / ".stopdown")
    exported(tmp_path, "diffsynth", tmp_path.parent / f"{tmp_path.name}-out")
    assert clips_in(tmp_path.parent / f"{tmp_path.name}-out") == splits["train"]


def by_split(folder: Path, cache: Path) -> dict[str, set[str]]:
    loaded = datasets.load_dataset(str(folder), cache_dir=str(cache))
    plain = {name: part.cast_column("video", datasets.Video(decode=False)) for name, part in loaded.items()}
    return {name: {Path(item["video"]["path"]).stem for item in part} for name, part in plain.items()}


def test_the_folder_of_a_version_loads_by_split_and_its_card_says_so(tmp_path: Path) -> None:
    path = tmp_path / "squares"
    build(path)
    assert set(by_split(path, tmp_path / "one")) == {"unsplit"}  # nobody knows yet whether it becomes a version
    commit_folder(History(path), "first", splits=RATIOS)
    assert by_split(path, tmp_path / "two") == held_out(path)
    card = (path / "README.md").read_text()
    assert "Not committed" not in card and "not split" not in card and "a version of the history" in card
    commit_folder(History(path), "other splits", splits=SplitRatios(train=0.25, validation=0.25, test=0.5))
    assert by_split(path, tmp_path / "three") == held_out(path)
    assert status(History(path)).clean


def test_a_card_that_a_person_wrote_is_committed_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "squares"
    build(path)
    (path / "README.md").write_text("# mine\n")
    commit_folder(History(path), "first", splits=RATIOS)
    assert (path / "README.md").read_text() == "# mine\n"
