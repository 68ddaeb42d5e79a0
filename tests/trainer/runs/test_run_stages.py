"""The stage engine: what is done stays done, what changed is done again, a kill loses nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scenes.errors import InputError
from trainer.commands.runs import command as list_runs
from trainer.runs.stage_runner import StageRecord, digest_of, file_digests, read_state, run_stages


class Doubling:
    """Writes twice the number that the stage before wrote, plus its own setting."""

    def __init__(self, root: Path, name: str, setting: int, before: str | None) -> None:
        self.root, self.name, self.setting, self.before = root, name, setting, before
        self.runs = 0

    def inputs(self, earlier: Mapping[str, StageRecord]) -> Mapping[str, str]:
        chain = {} if self.before is None else {self.before: digest_of(earlier[self.before].made)}
        return {"setting": str(self.setting), **chain}

    def made(self) -> Mapping[str, str]:
        return file_digests(self.root, [self.root / self.name])

    def run(self) -> Mapping[str, Any]:
        self.runs += 1
        below = 0 if self.before is None else int((self.root / self.before).read_text())
        (self.root / self.name).write_text(str(2 * below + self.setting))
        return {"number": 2 * below + self.setting}


def chain(root: Path, settings: tuple[int, ...]) -> list[Doubling]:
    names = [f"s{index}" for index in range(len(settings))]
    return [
        Doubling(root, name, setting, names[i - 1] if i else None)
        for i, (name, setting) in enumerate(zip(names, settings, strict=True))
    ]


def silent(*_: str) -> None:
    pass


def expected(settings: tuple[int, ...]) -> list[int]:
    numbers: list[int] = []
    for setting in settings:
        numbers.append(2 * (numbers[-1] if numbers else 0) + setting)
    return numbers


@given(
    before=st.tuples(*[st.integers(0, 3)] * 4),
    after=st.tuples(*[st.integers(0, 3)] * 4),
)
def test_just_what_depends_on_a_change_is_done_again(
    tmp_path_factory: pytest.TempPathFactory, before: tuple[int, ...], after: tuple[int, ...]
) -> None:
    root = tmp_path_factory.mktemp("run")
    run_stages(chain(root, before), root, silent)
    stages = chain(root, after)
    records = run_stages(stages, root, silent)
    assert [records[s.name].summary["number"] for s in stages] == expected(after)
    own = [old != new for old, new in zip(before, after, strict=True)]
    changed = [old != new for old, new in zip(expected(before), expected(after), strict=True)]
    for index, stage in enumerate(stages):
        assert stage.runs == int(own[index] or (index > 0 and changed[index - 1]))


def test_a_damaged_result_is_said_and_made_again(tmp_path: Path) -> None:
    run_stages(chain(tmp_path, (1, 2, 3)), tmp_path, silent)
    (tmp_path / "s1").write_text("9")
    told: list[tuple[str, str]] = []
    stages = chain(tmp_path, (1, 2, 3))
    run_stages(stages, tmp_path, lambda event, name, _: told.append((event, name)))
    assert ("damaged", "s1") in told
    assert [stage.runs for stage in stages] == [0, 1, 0], "the same result again changes nothing after it"
    (tmp_path / "s2").unlink()
    stages = chain(tmp_path, (1, 2, 3))
    run_stages(stages, tmp_path, silent)
    assert [stage.runs for stage in stages] == [0, 0, 1]


def test_from_and_until(tmp_path: Path) -> None:
    stages = chain(tmp_path, (1, 2, 3))
    assert list(run_stages(stages, tmp_path, silent, until="s1")) == ["s0", "s1"]
    assert not (tmp_path / "s2").exists()
    with pytest.raises(InputError, match="stage s1 depends on what has changed"):
        run_stages(chain(tmp_path, (1, 5, 3)), tmp_path, silent, first="s2")
    again = chain(tmp_path, (1, 2, 3))
    run_stages(again, tmp_path, silent, first="s1")
    assert [stage.runs for stage in again] == [0, 1, 1]
    with pytest.raises(InputError, match="no stage 's11'"):
        run_stages(again, tmp_path, silent, until="s11")
    with pytest.raises(InputError, match="comes after"):
        run_stages(again, tmp_path, silent, first="s2", until="s0")


def test_a_stage_before_from_that_is_not_done_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="stage s0 is not done"):
        run_stages(chain(tmp_path, (1, 2)), tmp_path, silent, first="s1")


def test_a_state_that_is_no_state_is_named(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(InputError, match=r"state\.json cannot be read"):
        read_state(tmp_path)


KILLED = """
    import os, signal, sys
    from pathlib import Path
    sys.path.insert(0, {tests!r})
    from test_run_stages import chain, silent
    from trainer.runs.stage_runner import run_stages
    root = Path({root!r})
    stages = chain(root, (1, 2, 3))
    last = stages[{stage}]
    work = last.run
    def dying():
        result = work()
        os.kill(os.getpid(), signal.SIGKILL)
        return result
    last.run = dying
    run_stages(stages, root, silent)
"""


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_killed_inside_any_stage_it_goes_on_there(tmp_path: Path, stage: int) -> None:
    script = textwrap.dedent(KILLED).format(tests=os.path.dirname(__file__), root=str(tmp_path), stage=stage)  # noqa: PTH120
    killed = subprocess.run([sys.executable, "-c", script], check=False)
    assert killed.returncode == -signal.SIGKILL
    stages = chain(tmp_path, (1, 2, 3))
    run_stages(stages, tmp_path, silent)
    assert [s.runs for s in stages] == [int(index >= stage) for index in range(3)]
    assert [int((tmp_path / s.name).read_text()) for s in stages] == expected((1, 2, 3))


def test_runs_that_are_not_there_are_refused_with_what_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    list_runs()  # nobody has run anything yet, which is no mistake
    with pytest.raises(InputError, match=r"--out nowhere is no folder"):
        list_runs(out=Path("nowhere"))
    with pytest.raises(InputError, match=r"runs has no runs of 'x{300}'; start one"):
        list_runs("x" * 300)
    (tmp_path / "runs" / "shutter").mkdir(parents=True)
    with pytest.raises(InputError, match=r"runs has no runs of 'shuter', did you mean 'shutter'|did you mean.*it has shutter"):
        list_runs("shuter")
