"""Public docstrings say what a caller cannot see in a signature: shapes of arrays, and the errors that are raised."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("scenes", "generator", "trainer")
ARRAY = re.compile(r"\b(Floats|Bytes|Mask|Tensor|NDArray|ndarray)\b")
SHAPED = re.compile(r"_[A-Z0-9]*[A-Z][A-Z0-9]*$|_\d$")  # `key_BKD`: the legend is at the top of the file
GROUPED = re.compile(r"\b(Mapping|dict|Callable)\b")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def public(path: Path) -> Iterator[tuple[str, Function | ast.ClassDef, str]]:
    """Yield the public functions, classes and methods of a module: name, node, docstring of the class around it."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
            yield node.name, node, ""
            if isinstance(node, ast.ClassDef):
                around = ast.get_docstring(node) or ""
                inside = (one for one in node.body if isinstance(one, Function) and not one.name.startswith("_"))
                yield from ((f"{node.name}.{one.name}", one, around) for one in inside)


def raised(node: Function) -> set[str]:
    """Return the names of this project's errors that a function raises itself."""
    calls = (one.exc.func for one in ast.walk(node) if isinstance(one, ast.Raise) and isinstance(one.exc, ast.Call))
    names = {call.id for call in calls if isinstance(call, ast.Name)}
    return {
        name
        for name in names
        if name.endswith("Error") and name not in ("ValueError", "TypeError", "RuntimeError", "AssertionError")
    }


def arrays(node: Function) -> list[str]:
    """Return the arrays among a function's arguments whose names do not carry their shape."""
    given = [*node.args.args, *node.args.kwonlyargs]
    typed = ((one.arg, ast.unparse(one.annotation)) for one in given if one.annotation is not None)
    return [name for name, kind in typed if ARRAY.search(kind) and not GROUPED.search(kind) and not SHAPED.search(name)]


@pytest.mark.parametrize("package", PACKAGES)
def test_public_docstrings_say_shapes_and_errors(package: str) -> None:
    silent = []
    for path in sorted((ROOT / package).rglob("*.py")):
        command = "/commands/" in path.as_posix()  # the docstring of a command is its help
        for name, node, around in public(path):
            where, text = f"{path.relative_to(ROOT)}: {name}", ast.get_docstring(node) or ""
            if not text:
                silent.append(f"{where} has no docstring")
            elif isinstance(node, Function) and not command:
                if (errors := raised(node)) and not re.search(r"(?i)raise|refuse", text + around):
                    silent.append(f"{where} raises {', '.join(sorted(errors))} and does not say when")
                if (shapeless := arrays(node)) and not re.search(r"\[[^\]]*[A-Za-z0-9.]+[^\]]*\]", text + around):
                    silent.append(f"{where} does not say the shape of {', '.join(shapeless)}, such as `[T, H, W, 3]`")
    assert not silent, "\n".join(silent)
