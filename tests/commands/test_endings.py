"""How commands end when the terminal, the disk or the person says no; and that no text of data commands a terminal."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from many_commands import Answer, run_commands
from rich.table import Table
from rich.text import Text
from versions.versions_support import built

from generator.console.terminal import Console

pytestmark = pytest.mark.timeout(900)  # many commands on a busy machine
HOSTILE = "\x1b]0;owned\x07\x1b[2J\x1b[31mred\x9b1m\u202ereversed [bold]über 日本[/nothing]"


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Return a committed dataset of synthetic clips."""
    built(tmp_path / "ds")
    (tmp_path / "empty").mkdir()
    return tmp_path / "ds"


def ended_well(answer: Answer) -> bool:
    """Return whether a command ended without a traceback, and within a line where it was refused."""
    return answer.code >= 0 and "Traceback" not in answer.err and "Exception ignored" not in answer.err


def test_output_that_cannot_be_written_is_one_line_and_exit_code_2(dataset: Path) -> None:
    where = {"cwd": str(dataset.parent)}
    words = (["log", "ds"], ["log", "ds", "--json"], ["query", "ds", "layer > 0", "--format", "csv"], ["--version"], ["schema"])
    for kind in ("closed", "full"):
        for answer in run_commands([{"args": args, kind: [1], **where} for args in words]):
            assert answer.code == 2 and answer.is_one_line and "output cannot be written" in answer.err, answer


def test_work_goes_on_without_an_error_stream(dataset: Path) -> None:
    (dataset.parent / "new.txt").write_text("x")
    for kind in ("closed", "full"):
        cases = [{"args": ["log", "ds"]}, {"args": ["clone", "ds", f"cloned-{kind}"]}, {"args": ["log", "none"]}]
        cases += [{"args": ["tag", "ds", kind], kind: [0, 1, 2]}]
        answers = run_commands([{kind: [0, 2], "cwd": str(dataset.parent), **case} for case in cases])
        assert [answer.code for answer in answers] == [0, 0, 2, 2], answers
        assert (dataset / f".stopdown/tags/{kind}.json").is_file()  # what was asked is done; only the word of it is lost


def test_an_encoding_without_a_character_shows_its_escape(dataset: Path) -> None:
    asked = ["query", "ds", "layer > 0"]
    cases = [{"args": [*asked, "--format", "json"]}, {"args": asked}, {"args": ["log", "ds"]}, {"args": ["plan", "nö"]}]
    ascii_only = [{"encoding": "ascii", "cwd": str(dataset.parent), **case} for case in cases]
    answers = run_commands(ascii_only)
    assert [answer.code for answer in answers] == [0, 0, 0, 2] and all(map(ended_well, answers)), answers
    assert "über grün" in json.loads(answers[0].out)[0]["caption"] and answers[0].out.isascii()


def test_control_c_at_any_file_is_130_and_one_line(dataset: Path) -> None:
    commands = ["log ds", "status ds", "verify ds --all", "query ds layer>0", "restore ds latest", "clone ds cloned"]
    commands += ["push ds empty", "gc ds"]
    cases = [{"args": words.split(), "interrupt": at, "cwd": str(dataset.parent)} for words in commands for at in (1, 20)]
    answers = run_commands(cases)
    interrupted = [answer for answer in answers if answer.code == 130]
    assert all(map(ended_well, answers)), [answer for answer in answers if not ended_well(answer)]
    assert len(interrupted) >= len(commands) and all(answer.is_one_line for answer in interrupted), interrupted
    assert [answer.code for answer in run_commands([{"args": ["verify", str(dataset), "--all"]}])] == [0]


def test_paths_and_disks_that_cannot_be_are_one_line(dataset: Path, tmp_path: Path) -> None:
    long, lines = "x" * 300, "two\nlines"
    paths = [
        ["log", long],
        ["plan", long],
        ["build", long],
        ["clone", "ds", long],
        ["push", "ds", long],
        ["export", "ds", "x", long],
    ]
    paths += [
        ["status", lines],
        ["plan", lines],
        ["verify", f"{long}/{long}"],
        ["gallery", long],
    ]
    paths += [["query", long, "1=1"], ["merge", "ds", long]]
    answers = run_commands([{"args": args, "cwd": str(tmp_path)} for args in paths])
    for args, answer in zip(paths, answers, strict=True):
        assert answer.code in (1, 2) and answer.is_one_line, (args[0], answer)
    (dataset / "clips" / f"{next((dataset / 'clips').glob('*.txt')).stem}.txt").write_text("edited\n")
    full = [["commit", "ds", "-m", "x"], ["clone", "ds", "cloned"], ["verify", "ds", "--all"], ["push", "ds", "empty"]]
    for args, answer in zip(
        full, run_commands([{"args": a, "file_bytes": 100, "cwd": str(tmp_path)} for a in full]), strict=True
    ):
        assert ended_well(answer) and (answer.err == "" or answer.is_one_line), (args, answer)


def test_text_of_data_commands_no_terminal(dataset: Path) -> None:
    table = pq.read_table(dataset / "labels.parquet")
    name = table["clip_id"][0].as_py()
    (dataset / "clips" / f"{name}.txt").write_text(f"{HOSTILE}\n")
    where = {"cwd": str(dataset.parent)}
    shown = ["log ds", "show ds", "status ds", "diff ds latest~1 latest", "verify ds --all", "tag ds", "log ds --json"]
    shown += ["query ds layer>0", "query ds layer>0 --format json", "query ds layer>0 --format csv", "verify ds"]
    cases = [
        {"args": ["commit", "ds", "-m", f"first {HOSTILE}"], **where},
        *({"args": words.split(), **where} for words in shown),
    ]
    cases.append({"args": ["log", f"no{HOSTILE}"], **where})
    for answer in run_commands(cases):
        assert ended_well(answer), answer
        assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(answer.out + answer.err), answer
    assert "red" in run_commands([{"args": ["log", "ds"], **where}])[0].out


def test_words_that_are_no_unicode_are_one_line(dataset: Path) -> None:
    cases = [["query", "ds", "caption = '\udcff'"], ["tag", "ds", "\udcff"], ["log", "\udcff"], ["show", "ds", "\udcff"]]
    for answer in run_commands([{"args": args, "cwd": str(dataset.parent)} for args in cases]):
        assert answer.code == 2 and answer.is_one_line, answer


def test_rich_keeps_its_own_colours_and_takes_no_style_from_data() -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, color_system="truecolor", width=120)
    table = Table("caption")
    table.add_row(HOSTILE)
    table.add_row(Text(HOSTILE, style="green"))
    console.print(HOSTILE, table)
    assert "\x1b]0" not in file.getvalue() and "\x1b[2J" not in file.getvalue() and "\x1b[31m" not in file.getvalue()
    assert "[bold]über 日本[/nothing]" in file.getvalue() and "\x1b[32m" in file.getvalue()


def test_a_mistake_in_the_words_of_a_command_is_one_line_and_names_the_help(tmp_path: Path) -> None:
    cases = {
        ("plan",): "missing argument 'recipe'; try `stopdown plan --help`",
        ("log", "ds", "--jsno"): "no such option: --jsno (Possible options: --json); try `stopdown log --help`",
        ("log", "a", "b", "c"): "got unexpected extra argument",
        ("query", "ds", "layer > 0", "--format", "xls"): "invalid value for '--format'",
        ("log", "ds", "--last", "few"): "try `stopdown log --help`",
        ("adapter", "nosuch"): "no such command 'nosuch'; try `stopdown adapter --help`",
        ("nosuch",): "no such command 'nosuch'; try `stopdown --help`",
    }
    answers = run_commands([{"args": list(words), "cwd": str(tmp_path)} for words in cases])
    for answer, said in zip(answers, cases.values(), strict=True):
        assert answer.code == 2 and answer.is_one_line and said in answer.err and not answer.out, answer
    (helped,) = run_commands([{"args": [], "cwd": str(tmp_path)}])
    assert helped.code == 2 and "Usage" in helped.out + helped.err and "plan" in helped.out + helped.err
