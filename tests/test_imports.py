"""Every module imports alone, as the first of this project in a fresh interpreter: no circle that only one order hides.

What an import does is followed through the sources, in order, for every module as the first: that takes seconds where as many
interpreters with torch would take minutes. Interpreters of their own import the light modules, so that the reckoning is held
against Python itself.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from test_layout import PACKAGES, ROOT, modules


class CircularError(Exception):
    """An import takes a name from a module that has not come to it yet."""


def steps(body: list[ast.stmt]) -> Iterator[tuple[str, str | None, str | None]]:
    """Yield what a module's top level does, in order: (module, name, bound name) of an import, ("", None, name) of a name."""
    for node in body:
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.module, alias.name, alias.asname or alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, None, alias.asname) for alias in node.names)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield "", None, node.name
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from steps(node.orelse)
        else:
            for child in ast.walk(node):
                if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store):
                    yield "", None, child.id
            for part in ("body", "handlers", "orelse", "finalbody"):
                inner = getattr(node, part, [])
                yield from steps([s for h in inner for s in (h.body if isinstance(h, ast.ExceptHandler) else [h])])


class Interpreter:
    """A fresh interpreter that runs imports only; `program` has the steps of every module by dotted name."""

    def __init__(self, program: Mapping[str, list[tuple[str, str | None, str | None]]]) -> None:
        self.program = program
        self.bound: dict[str, set[str]] = {}  # by module that was begun
        self.finished: set[str] = set()

    def load(self, module: str) -> None:
        """Import a module, its packages first; raises CircularError as Python raises ImportError."""
        parts = module.split(".")
        for name in (".".join(parts[:length]) for length in range(1, len(parts) + 1)):
            if name in self.program and name not in self.bound:
                self.run(name)

    def run(self, module: str) -> None:
        """Run a module's top level."""
        bound = self.bound[module] = set()
        for source, name, as_name in self.program[module]:
            if source in self.program:
                self.load(source)
                if name and f"{source}.{name}" in self.program:
                    self.load(f"{source}.{name}")
                elif source not in self.finished and (name or "") not in self.bound[source]:
                    raise CircularError(f"{module} takes {name or 'what it needs'} from {source}, which is not that far yet")
            bound.add(as_name or "")
        self.finished.add(module)


def failures(program: Mapping[str, list[tuple[str, str | None, str | None]]]) -> dict[str, str]:
    """Return the modules that cannot be the first import, with the reason."""
    found = {}
    for module in program:
        try:
            Interpreter(program).load(module)
        except CircularError as error:
            found[module] = str(error)
    return found


def read(files: Mapping[str, Path]) -> dict[str, list[tuple[str, str | None, str | None]]]:
    """Return the steps of modules by their dotted names."""
    return {name: list(steps(ast.parse(path.read_text()).body)) for name, path in files.items()}


def files() -> dict[str, Path]:
    """Return the file of every module of this project."""
    names = [(name, ROOT / name.replace(".", "/")) for package in PACKAGES for name in modules(package)]
    return {name: path / "__init__.py" if path.is_dir() else path.with_suffix(".py") for name, path in names}


def test_every_module_imports_alone() -> None:
    assert not (found := failures(read(files()))), "\n".join(f"import {name}: {why}" for name, why in found.items())


CIRCLES = {
    "two modules": {"p/__init__.py": "", "p/a.py": "from p.b import y\nx = 1\n", "p/b.py": "from p.a import x\ny = 1\n"},
    "a package and its module": {
        "p/__init__.py": "from p.a import x\n",
        "p/a.py": "from p.b import y\nx = 1\n",
        "p/b.py": "from p import x as y\n",
    },
    "one order only": {"p/__init__.py": "", "p/a.py": "x = 1\nfrom p.b import y\n", "p/b.py": "from p.a import x\ny = x\n"},
    "none, for the package's modules": {
        "p/__init__.py": "from p.a import x\n",
        "p/a.py": "from p.b import y\nx = 1\n",
        "p/b.py": "y = 1\n",
    },
    "none, inside a function": {
        "p/__init__.py": "",
        "p/a.py": "from p.b import y\nx = 1\n",
        "p/b.py": "def y():\n    from p.a import x\n",
    },
}


@pytest.mark.parametrize("name", CIRCLES)
def test_the_reckoning_is_what_python_does(tmp_path: Path, name: str) -> None:
    (tmp_path / "p").mkdir()
    for path, text in CIRCLES[name].items():
        (tmp_path / path).write_text(text)
    names = {"p": tmp_path / "p/__init__.py", "p.a": tmp_path / "p/a.py", "p.b": tmp_path / "p/b.py"}
    assert set(failures(read(names))) == set(really(tmp_path, list(names), ""))


def test_light_modules_really_import_alone() -> None:
    light = sorted(name for name in modules("scenes") if name != "scenes.blender")[::4]
    assert not (found := really(ROOT, light, "import numpy, scipy.ndimage, scipy.optimize, scipy.special, pydantic")), found


PROGRAM = """
import importlib, json, os, sys, traceback
{before}
sys.path.insert(0, sys.argv[1])
for name in json.loads(sys.argv[2]):
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            importlib.import_module(name)
        except BaseException:
            print(json.dumps([name, traceback.format_exc(limit=-2)]), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
print("done")
"""


def really(root: Path, names: list[str], before: str) -> dict[str, str]:
    """Import each module in a process of its own, forked from one that ran `before`; return what fails, and why."""
    words = [sys.executable, "-P", "-c", PROGRAM.format(before=before), str(root), json.dumps(names)]
    lines = subprocess.run(words, cwd=root, capture_output=True, text=True, check=True).stdout.splitlines()
    assert lines.pop() == "done"
    return dict(json.loads(line) for line in lines)
