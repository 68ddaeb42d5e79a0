"""`stopdown export` as a person meets it: words or JSON, and one line for every mistake."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from generator.commands.export import command
from generator.export import EXPORTS
from generator.versions.working.working_folder import WorkingFolder
from scenes.errors import InputError

app = typer.Typer(add_completion=False)
app.command()(command)


def said(*words: str) -> str:
    done = CliRunner().invoke(app, list(words))
    if done.exception is not None:
        raise done.exception
    return done.stdout


def test_the_list_names_every_format_and_preset() -> None:
    listed = said("--list")
    assert all(name in listed for name in EXPORTS) and "--preset less-is-more" in listed
    assert set(json.loads(said("--list", "--json"))) == set(EXPORTS)


def test_an_export_says_what_it_did_and_what_comes_next(dataset: WorkingFolder, tmp_path: Path) -> None:
    words = [str(dataset.path), "musubi-tuner", str(tmp_path / "mit Leerzeichen"), "--license", "cc0-1.0"]
    done = said(*words)
    assert f"{len(dataset)} clips as musubi-tuner" in done and "next: pass" in done
    assert "Licence: CC0-1.0." in (tmp_path / "mit Leerzeichen" / "README.md").read_text()
    again = json.loads(said(*words, "--json"))
    assert again["kept"] == again["files"] and again["made"] == again["linked"] == again["copied"] == 0


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ((), "give DATASET FORMAT OUT"),
        (("nowhere", "videofolder", "out"), "is not a Stopdown dataset"),
        (("DATASET", "videofodler", "out"), "did you mean 'videofolder'"),
        (("DATASET", "videofolder", "out", "--license", "mine"), "licence 'mine' is not known"),
        (("DATASET", "videofolder", "DATASET"), "inside the dataset"),
    ],
)
def test_a_mistake_is_one_line_and_changes_nothing(
    dataset: WorkingFolder, tmp_path: Path, words: tuple[str, ...], reason: str
) -> None:
    places = {"DATASET": str(dataset.path), "out": str(tmp_path / "out"), "nowhere": str(tmp_path / "nowhere")}
    with pytest.raises(InputError, match=reason) as caught:
        said(*(places.get(word, word) for word in words))
    assert "\n" not in str(caught.value) and caught.value.exit_code == 2
    assert not (tmp_path / "out").exists()


def test_reading_the_command_loads_no_optional_library() -> None:
    probe = (
        "import sys, generator.commands.export; print([n for n in ('lance', 'datasets', 'torch', 'bpy') if n in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_without_lance_the_format_says_what_to_install(
    dataset: WorkingFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: None)
    with pytest.raises(InputError, match=r'pip install "stopdown\[lance\]"'):
        said(str(dataset.path), "lance", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
