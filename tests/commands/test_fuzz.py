"""Nothing that a person can write gives a traceback: recipes, overrides, command lines.

A minute of draws that are the same every time; `make fuzz` draws anew, and STOPDOWN_FUZZ times as many.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import stopdown
from generator.recipe.load import load_recipe, parse_recipe
from generator.recipe.plan import make_plan
from scenes.errors import StopdownError

if importlib.util.find_spec("torch") is None:
    pytest.skip("torch is not installed", allow_module_level=True)

from fuzz_support import RECIPE, VALUES, mangled, overrides

from trainer.config.recipe import parse_settings

TIMES = int(os.environ.get("STOPDOWN_FUZZ", "1"))
MOST_CLIPS = 60  # of recipes that are planned, too
LONGEST_S = 120  # of one command, on a busy machine
ENDLESS = {"play", "monitor"}  # they would serve or watch; their own tests give them odd words


def one_line_or_nothing(call: Callable[[], Any]) -> Any:
    """Return what a call returns, or None where it refuses in one line."""
    try:
        return call()
    except StopdownError as error:
        words = str(error)
        assert words and "\n" not in words and "\r" not in words and "\x1b" not in words, words
        assert error.exit_code in (1, 2)
        return None


@settings(max_examples=400 * TIMES)
@given(overrides)
def test_odd_overrides_are_refused_in_one_line(given_overrides: list[str]) -> None:
    recipe = one_line_or_nothing(lambda: parse_recipe(RECIPE, source="fuzz.toml", overrides=given_overrides))
    one_line_or_nothing(lambda: parse_settings(RECIPE, source="fuzz.toml", overrides=given_overrides))
    if recipe is not None:
        clips = sum(len(one.frames) * one.scenes_per_layer * sum(one.layers) for one in recipe.pyramid)
        if clips <= MOST_CLIPS and max(max(one.frames) for one in recipe.pyramid) <= 33:
            one_line_or_nothing(lambda: make_plan(recipe).to_json())


@settings(max_examples=300 * TIMES)
@given(mangled(RECIPE))
def test_mangled_recipes_are_refused_in_one_line(text: str) -> None:
    one_line_or_nothing(lambda: parse_recipe(text, source="fuzz.toml"))
    one_line_or_nothing(lambda: parse_settings(text, source="fuzz.toml"))


@settings(max_examples=100 * TIMES)
@given(st.binary(max_size=200), st.sampled_from(["a.toml", "x" * 300, "a\x00b", ".", ""]))
def test_mangled_files_are_refused_in_one_line(tmp_path_factory: pytest.TempPathFactory, data: bytes, name: str) -> None:
    folder = Path(tmp_path_factory.getbasetemp())
    with contextlib.suppress(OSError, ValueError):
        (folder / name).write_bytes(data)
    one_line_or_nothing(lambda: load_recipe(folder / name))


def spoken(words: list[str], folder: Path) -> tuple[int, str]:
    """Return the exit code of `stopdown WORDS` in a folder, and what it wrote to stderr; in a fork, for it ends its process."""
    out, err = folder / ".out", folder / ".err"
    child = os.fork()
    if not child:
        code = 99
        try:
            os.setsid()
            gc.freeze()  # collecting what it shares with its parent would copy it all
            for number, file in ((0, Path(os.devnull)), (1, out), (2, err)):
                os.dup2(os.open(file, os.O_RDWR | os.O_CREAT), number)
            # The command gives itself other streams; the end of these must not close what lies below.
            sys.stdin, sys.stdout, sys.stderr = (
                os.fdopen(number, mode, closefd=False) for number, mode in enumerate(("r", "w", "w"))
            )
            os.chdir(folder)
            sys.argv = ["stopdown", *words]
            stopdown.main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(Exception):
                    stream.flush()
            os._exit(code)
    return ended(child), err.read_text(errors="replace")


def ended(child: int) -> int:
    """Return the exit code of a process; it and what it started is killed after a while."""
    deadline_s = time.monotonic() + LONGEST_S
    while not (found := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > deadline_s:
            os.killpg(child, signal.SIGKILL)
        time.sleep(0.005)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(found[1])


def parameters(name: str) -> list[Any]:
    """Return the parameters of a command; of the first of its commands where it has several."""
    found = importlib.import_module(stopdown.COMMANDS[name][0])
    app = getattr(found, "app", None)
    if app is None:
        app = typer.Typer()
        app.command()(found.command)
    group: Any = typer.main.get_command(app)
    return list(group.params)


@st.composite
def lines(draw: st.DrawFn) -> list[str]:
    """Draw a command line: odd values for some options of a command, and for what it takes without a name."""
    name = draw(st.sampled_from(sorted(set(stopdown.COMMANDS) - ENDLESS)))
    words = [name]
    odd = st.one_of(st.sampled_from([value for value in VALUES if "\x00" not in value]), st.text(max_size=8), st.just("\udcff"))
    for parameter in parameters(name):
        if parameter.param_type_name == "argument":
            words += [draw(st.sampled_from(["none", "recipe.toml", "", ".", "x" * 300, "-", "a\nb"]))]
        elif draw(st.integers(0, 5)) == 0 and parameter.name != "help":
            option = draw(st.sampled_from(parameter.opts + parameter.secondary_opts))
            words += [option] if getattr(parameter, "is_flag", False) else [option, draw(odd)]
    return words


@pytest.mark.timeout(300 * TIMES)
# The first draws import all commands, which a busy machine takes minutes for.
@settings(max_examples=120 * TIMES, suppress_health_check=[HealthCheck.too_slow])
@given(line=lines())
def test_odd_command_lines_end_in_order(tmp_path_factory: pytest.TempPathFactory, line: list[str]) -> None:
    folder = tmp_path_factory.mktemp("cwd")
    (folder / "recipe.toml").write_text(RECIPE.replace("scenes_per_layer = 1", "scenes_per_layer = 0"))
    code, said = spoken(line, folder)
    assert code in (0, 1, 2), (line, said)  # what ends in none of the ways of `command_line` is 99 here
    assert "Traceback" not in said, (line, said)
    errors = [words for words in said.splitlines() if words.startswith("stopdown: error: ")]
    helped = code == 2 and len(line) == 1  # called with nothing, as `adapter`, it shows its help
    assert len(errors) == (code == 2) or code == 1 or helped, (line, code, said)
    assert "\x1b" not in said, (line, said)
