"""`stopdown slurm`: what the scripts say, that a shell takes them, and what a real `sbatch` on the PATH is given."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from farm_support import RECIPE, farm_plan

from generator.errors import SlurmError
from generator.farm.slurm import Scripts, SlurmOptions, parse_array, program, submit, write_scripts
from scenes.errors import InputError

PLAN = farm_plan()

# It writes down what it is given and answers as Slurm does.
SBATCH = """#!/bin/bash
printf '%s\\n' "$@" '' >> "$SBATCH_SAW"
case "$*" in *shards.sh*) echo "4711${SBATCH_CLUSTER:-}";; *) echo 4712;; esac
"""


def stopdown(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """Run the command in this process; return its exit code."""
    import typer

    from generator.commands.slurm import command
    from scenes.errors import StopdownError

    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(command)
    try:
        app(words, standalone_mode=False)
    except StopdownError as error:
        print(f"stopdown: error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a recipe at a path with a space and a quote, and go to its folder."""
    folder = tmp_path / "it's a place"
    folder.mkdir()
    path = folder / "farm.toml"
    path.write_text(RECIPE)
    monkeypatch.chdir(folder)
    return path


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put an `sbatch` on the PATH; return the file of the words that it was given."""
    tools, saw = tmp_path / "bin", tmp_path / "saw.txt"
    tools.mkdir()
    (tools / "sbatch").write_text(SBATCH)
    (tools / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SBATCH_SAW", str(saw))
    return saw


def directives(script: Path) -> dict[str, str]:
    """Return the `#SBATCH` options of a script, which must all come before its first command."""
    text = script.read_text()
    head = text[: text.index("set -euo pipefail")]
    assert "#SBATCH" not in text[len(head) :]
    lines = [line for line in head.splitlines() if line.startswith("#SBATCH")]
    found = [re.fullmatch(r"#SBATCH --([a-z-]+)(?:=(.*))?", line) for line in lines]
    return {match[1]: match[2] or "" for match in found if match}


def ran(script: Path, folder: Path, task: str) -> list[str]:
    """Return the words of the command that a script becomes, by running it with a program that prints them."""
    words = shlex.split(script.read_text().splitlines()[-1])
    show = folder / "show.py"
    show.write_text(f"#!{sys.executable}\nimport sys\nprint(repr(sys.argv[1:]))\n")
    show.chmod(0o755)
    text = script.read_text().replace(shlex.quote(words[1]), shlex.quote(str(show)), 1)
    copy = folder / "copy.sh"
    copy.write_text(text)
    result = subprocess.run(
        ["bash", str(copy)], env={**os.environ, "SLURM_ARRAY_TASK_ID": task}, capture_output=True, text=True, check=True
    )
    return list(ast.literal_eval(result.stdout))


def test_the_scripts_render_every_shard_and_then_finish(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(recipe), "--array", "64%8", "--workers", "3", "--threads", "2", "--time", "1-12:00:00", "--memory", "8G"]
    words += ["--partition", "cpu,long", "--account", "lab", "--set", 'description="a $HOME; b"', "-m", "it's `done`"]
    assert stopdown(words, monkeypatch) == 0
    folder = recipe.parent / "slurm" / "farm"
    shards, finish = folder / "shards.sh", folder / "finish.sh"
    for script in (shards, finish):
        assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
        assert os.access(script, os.X_OK) and script.read_text().startswith("#!/bin/bash\n")
    said = directives(shards)
    assert said["array"] == "1-64%8" and said["cpus-per-task"] == "6" and said["time"] == "1-12:00:00" and said["mem"] == "8G"
    assert said["partition"] == "cpu,long" and said["account"] == "lab" and said["job-name"] == "stopdown-farm"
    assert said["output"] == f'"{folder}/shard-%a.log"' and "requeue" in said
    said = directives(finish)
    assert "array" not in said and said["cpus-per-task"] == "1" and said["partition"] == "cpu,long" and "time" not in said

    common = ["build", str(recipe), "--out", str(recipe.parent / "datasets" / "farm"), "--set", 'description="a $HOME; b"']
    assert ran(shards, tmp_path, "7") == [*common, "--shard", "7/64", "--workers", "3", "--threads", "2"]
    assert ran(finish, tmp_path, "") == [*common, "--finish", "--shards", "64", "--message", "it's `done`"]
    out = capsys.readouterr().out
    assert "sbatch --parsable" in out and "--dependency=afterany" in out and f"{len(PLAN.clips)} clips in 64 shards" in out


def test_a_build_in_storage_keeps_its_address(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    place = ["--out", "s3://bucket/a set", "--endpoint", "http://127.0.0.1:9", "--region", "here"]
    assert stopdown([str(recipe), "--array", "2", *place, "--scripts", str(tmp_path / "jobs")], monkeypatch) == 0
    words = ran(tmp_path / "jobs" / "finish.sh", tmp_path, "")
    assert words == ["build", str(recipe), *place, "--finish", "--shards", "2"]
    assert "testing" not in (tmp_path / "jobs" / "shards.sh").read_text()


@pytest.mark.parametrize("after", ["any", "ok"])
def test_the_jobs_are_submitted_one_after_the_other(
    after: str, recipe: Path, cluster: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SBATCH_CLUSTER", ";far" if after == "ok" else "")  # a federation's answer names the cluster too
    assert stopdown([str(recipe), "--array", "4", "--submit", "--after", after], monkeypatch) == 0
    folder = recipe.parent / "slurm" / "farm"
    first, second = cluster.read_text().split("\n\n")[:2]
    assert first.split("\n") == ["--parsable", str(folder / "shards.sh")]
    assert second.split("\n") == ["--parsable", f"--dependency=after{after}:4711", str(folder / "finish.sh")]
    out = capsys.readouterr().out
    assert "shards 4711, finish 4712" in out and "stopdown monitor" in out


def test_what_sbatch_refuses_is_said_in_one_line(tmp_path: Path, cluster: Path) -> None:
    scripts = written(tmp_path, SlurmOptions(count=2))
    (tmp_path / "bin" / "sbatch").write_text("#!/bin/bash\necho 'sbatch: error: invalid partition specified: x' >&2\nexit 1\n")
    with pytest.raises(SlurmError, match="invalid partition") as refusal:
        submit(scripts)
    assert "\n" not in str(refusal.value) and refusal.value.exit_code == 1
    (tmp_path / "bin" / "sbatch").write_text("#!/bin/bash\necho hello\n")
    with pytest.raises(SlurmError, match="hello"):
        submit(scripts)


def test_without_sbatch_the_scripts_are_written_and_submitting_is_refused(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(recipe.parent))
    assert stopdown([str(recipe), "--array", "2", "--submit"], monkeypatch) == 2
    error = capsys.readouterr().err
    assert "no sbatch" in error and error.count("\n") == 1
    assert (recipe.parent / "slurm" / "farm" / "shards.sh").exists()


def written(folder: Path, options: SlurmOptions) -> Scripts:
    return write_scripts(PLAN.recipe, folder / "jobs", options, build=[*program(), "build", "farm.toml"])


@pytest.mark.parametrize("text", ["0", "x", "4%0", "1-64", "", "-3", "99999999", "4%", "4 "])
def test_an_array_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="--array"):
        parse_array(text)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"time": "soon"}, "--time"),
        ({"time": "1:2\n#SBATCH --mail-user=x"}, "--time"),
        ({"memory": "8 GB"}, "--memory"),
        ({"partition": "a b"}, "--partition"),
        ({"account": "x; rm -r ."}, "--account"),
        ({"workers": 0}, "at least one"),
        ({"after": "corr"}, "--after"),
    ],
)
def test_what_slurm_would_misread_is_refused_before_anything_is_written(
    changes: dict[str, object], said: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=said) as refusal:
        written(tmp_path, SlurmOptions(count=2, **changes))  # type: ignore[arg-type]
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "jobs").exists()


def test_a_folder_whose_name_slurm_would_misread_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="name another folder"):
        write_scripts(PLAN.recipe, tmp_path / "100%", SlurmOptions(count=2), build=["stopdown", "build", "farm.toml"])
