"""Scripts for Slurm: a job array that renders the shards of a plan, and a job after it that commits the version."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from generator.errors import SlurmError
from generator.farm.shards import MAX_SHARDS
from generator.farm.target import make_folder
from generator.io.atomic import write_atomic
from generator.processes.children import stopdown_command
from generator.recipe.estimate import estimate
from generator.recipe.schema import Recipe
from scenes.errors import InputError

_ARRAY = re.compile(r"(\d{1,7})(?:%(\d{1,7}))?")
_TIME = re.compile(r"\d+|\d+:\d\d|\d+:\d\d:\d\d|\d+-\d+|\d+-\d+:\d\d|\d+-\d+:\d\d:\d\d")
_MEMORY = re.compile(r"\d+[KMGT]?")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._,@+-]*")
_JOB = re.compile(r"\d+")
AFTER = ("any", "ok")


@dataclass(frozen=True, kw_only=True)
class SlurmOptions:
    """What is asked of Slurm: shards and how many may run at once (None: all), for each task processes, threads, time and
    memory, and where it may run. `after` says when the finishing job runs: after all shards, or only if all went well.
    """

    count: int
    at_once: int | None = None
    workers: int = 1
    threads: int = 1
    time: str | None = None
    memory: str | None = None
    partition: str | None = None
    account: str | None = None
    after: str = "any"

    @property
    def array(self) -> str:
        """The tasks, as `--array` takes them."""
        return f"1-{self.count}" if self.at_once is None else f"1-{self.count}%{self.at_once}"

    def check(self) -> None:
        """Raise InputError for what Slurm would not take, or would take for something else."""
        for option, value, pattern, words in (
            ("--time", self.time, _TIME, "minutes or days-hours:minutes:seconds, as in 90 or 1-12:00:00"),
            ("--memory", self.memory, _MEMORY, "megabytes, or a number with K, M, G or T, as in 8G"),
            ("--partition", self.partition, _NAME, "a name, or several with commas"),
            ("--account", self.account, _NAME, "a name"),
        ):
            if value is not None and not pattern.fullmatch(value):
                raise InputError(f"{option} {value!r} is none that Slurm takes; give {words}")
        if self.workers < 1 or self.threads < 1:
            raise InputError(f"{self.workers} workers of {self.threads} threads; give at least one of each")
        if self.after not in AFTER:
            raise InputError(f"--after {self.after!r}: give any (all shards have ended) or ok (all shards went well)")


@dataclass(frozen=True, kw_only=True)
class Scripts:
    """The scripts, and when the second is to run."""

    shards: Path
    finish: Path
    after: str

    @property
    def commands(self) -> tuple[str, str]:
        """What a person types to submit them."""
        return (
            f"job=$(sbatch --parsable {shlex.quote(str(self.shards))})",
            f'sbatch --dependency=after{self.after}:"${{job%%;*}}" {shlex.quote(str(self.finish))}',
        )


def parse_array(text: str) -> tuple[int, int | None]:
    """Return how many shards and how many at once a text such as `64` or `64%8` asks for; raises InputError."""
    match = _ARRAY.fullmatch(text)
    if match is None or not 1 <= int(match[1]) <= MAX_SHARDS or (match[2] is not None and int(match[2]) < 1):
        raise InputError(f"--array '{text}': give the number of shards, 1 to {MAX_SHARDS}, or 64%8 for 8 of 64 at once")
    return int(match[1]), None if match[2] is None else int(match[2])


def write_scripts(
    recipe: Recipe,
    folder: Path,
    options: SlurmOptions,
    *,
    build: Sequence[str],
    shard: Sequence[str] = (),
    finish: Sequence[str] = (),
) -> Scripts:
    """Write the scripts of a recipe's build into a folder, where their logs will lie too.

    `build` are the words that both begin with (program, recipe, `--out`), `shard` and `finish` those that one of them adds.
    Raises InputError for a folder whose name Slurm would read as a pattern.
    """
    options.check()
    where = folder.absolute()
    if not str(where).isprintable() or any(character in str(where) for character in '"%\\'):
        raise InputError(
            f'{where} cannot hold logs of Slurm, which reads the characters " % \\ as its own; name another folder'
        )
    make_folder(where)
    directives = _given(partition=options.partition, account=options.account)
    common: dict[str, object] = {
        "title": recipe.name,
        "job": _job_name(recipe.name),
        "clips": estimate(recipe).clips,
        "count": options.count,
        "logs": where,
    }
    workers = ["--workers", str(options.workers), "--threads", str(options.threads)]
    texts: dict[str, dict[str, object]] = {
        "shards": {
            "array": options.array,
            "cpus": options.workers * options.threads,
            "directives": [*directives, *_given(time=options.time, mem=options.memory)],
            "build": shlex.join(build),
            "shard_options": shlex.join([*workers, *shard]),
        },
        "finish": {
            "directives": directives,
            "build": shlex.join(build),
            "finish_options": "".join(f" {shlex.quote(word)}" for word in finish),
        },
    }
    paths = {}
    for name, words in texts.items():
        paths[name] = where / f"{name}.sh"
        text = _templates().get_template(f"slurm_{name}.sh.j2").render(**common, **words)
        write_atomic(paths[name], text.encode(), mode=0o755)
    return Scripts(shards=paths["shards"], finish=paths["finish"], after=options.after)


def submit(scripts: Scripts) -> tuple[str, str]:
    """Submit both scripts and return their job ids; raises InputError where there is no sbatch, SlurmError where it refuses."""
    if shutil.which("sbatch") is None:
        raise InputError(
            f"there is no sbatch on this machine; the scripts are in {scripts.shards.parent}: submit them where Slurm is, "
            "or leave out --submit"
        )
    first = _sbatch([str(scripts.shards)])
    return first, _sbatch([f"--dependency=after{scripts.after}:{first}", str(scripts.finish)])


def program() -> list[str]:
    """Return the words that run this installation's `stopdown` on another machine that sees the same files."""
    beside = Path(sys.executable).with_name("stopdown")
    return [str(beside)] if os.access(beside, os.X_OK) else stopdown_command()


def _sbatch(words: Sequence[str]) -> str:
    result = subprocess.run(["sbatch", "--parsable", *words], capture_output=True, text=True, check=False)
    job = result.stdout.strip().partition(";")[0]  # JOB or JOB;CLUSTER
    if result.returncode or not _JOB.fullmatch(job):
        said = (result.stderr or result.stdout).strip().splitlines()
        raise SlurmError(f"sbatch refuses {words[-1]}: {said[0] if said else f'exit code {result.returncode}'}")
    return job


def _given(**directives: str | None) -> list[tuple[str, str]]:
    return [(name, value) for name, value in directives.items() if value is not None]


def _job_name(name: str) -> str:
    return f"stopdown-{re.sub(r'[^A-Za-z0-9._-]', '-', name)}"


def _templates() -> jinja2.Environment:
    return jinja2.Environment(  # what is not a number or checked above is quoted by shlex; a script is no HTML
        loader=jinja2.PackageLoader("generator", "templates"),
        autoescape=False,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
