"""The tree stays one that a newcomer finds the way in: laws over imports, folders and file names, computed from the sources."""

from __future__ import annotations

import ast
import importlib
import re
import statistics
import subprocess
from collections import Counter, defaultdict
from functools import cache
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("scenes", "generator", "trainer")
DOORS = {*PACKAGES, "trainer.pipeline"}  # what others import from outside; nothing inside a package may import its own
MEDIAN, MOST = 9, 20
ROLES = {"__init__", "axis", "probe", "base", "config", "task", "adapter", "generate"}  # the same part in folders of a kind
PATH = re.compile(r"`((?:scenes|generator|trainer|tests|benchmarks|examples|docs|blender_addons)/[a-z0-9_./-]*)`")


@cache
def sources(top: str) -> tuple[str, ...]:
    """Return the Python files below a folder, as git knows them, new ones too."""
    words = ["git", "ls-files", "--cached", "--others", "--exclude-standard", f"{top}/*.py"]
    listed = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return tuple(path for path in sorted(set(listed.stdout.split())) if (ROOT / path).exists())


@cache
def modules(package: str) -> dict[str, str]:
    """Return the modules of a package by dotted name, with the folder of each."""
    parts = [path.removesuffix(".py").split("/") for path in sources(package)]
    return {".".join(words[:-1] if words[-1] == "__init__" else words): "/".join(words[:-1]) for words in parts}


def imported(package: str) -> list[tuple[str, str]]:
    """Return who imports whom inside a package, module by module; imports inside functions count as well."""
    known, found = modules(package), []
    for path in sources(package):
        words = path.removesuffix(".py").split("/")
        importer = ".".join(words[:-1] if words[-1] == "__init__" else words)
        for node in ast.walk(ast.parse((ROOT / path).read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
                names = [name if name in known else node.module for name in names]
            else:
                continue
            found += [(importer, name) for name in names if name in known]
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_folders_import_each_other_in_one_direction_only(package: str) -> None:
    folder, graph, why = modules(package), defaultdict(set), {}
    for importer, module in imported(package):
        assert module not in DOORS, f"{importer} imports {module}, the door for those outside: import the module itself"
        if importer not in DOORS and folder[importer] != folder[module]:
            graph[folder[importer]].add(folder[module])
            why.setdefault((folder[importer], folder[module]), f"{importer} imports {module}")
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle = error.args[1]
        steps = [why[after, before] for before, after in pairwise(circle)]
        pytest.fail("these folders import each other; move what one of them needs: " + "; ".join(steps))


@pytest.mark.parametrize("package", PACKAGES)
def test_a_folder_holds_few_files(package: str) -> None:
    counts = Counter(folder for module, folder in modules(package).items() if module.replace(".", "/") != folder)
    full = {folder: count for folder, count in counts.items() if count > MOST and not folder.endswith("/commands")}
    assert not full, f"more than {MOST} files; split by noun: {full}"
    assert statistics.median(counts.values()) <= MEDIAN


def test_a_folder_of_tests_holds_few_files() -> None:
    counts = Counter(str(Path(path).parent) for path in sources("tests"))
    assert not (full := {folder: count for folder, count in counts.items() if count > MOST}), full


@pytest.mark.parametrize("package", [*PACKAGES, "tests"])
def test_a_file_name_stands_once_in_a_package(package: str) -> None:
    places = defaultdict(list)
    for path in sources(package):
        if "/commands/" not in path or package == "tests":  # a command's module has the command's name
            places[Path(path).stem].append(path)
    roles = ROLES | ({"conftest"} if package == "tests" else set())
    twice = {name: paths for name, paths in places.items() if len(paths) > 1 and name not in roles}
    assert not twice, f"one name, several files: {twice}"


@pytest.mark.parametrize("package", PACKAGES)
def test_every_folder_says_what_lives_there_and_what_does_not(package: str) -> None:
    for folder in sorted(set(modules(package).values())):
        text = ast.get_docstring(ast.parse((ROOT / folder / "__init__.py").read_text())) or ""
        assert len(text.splitlines()) >= 3, f"{folder}/__init__.py: three lines on what lives there"
        assert "Not here:" in text, f"{folder}/__init__.py: say what a reader might look for here and finds elsewhere"


def test_the_map_names_every_folder_and_no_other() -> None:
    named = {path.rstrip("/") for path in PATH.findall((ROOT / "ARCHITECTURE.md").read_text())}
    folders = {folder for package in PACKAGES for folder in modules(package).values() if folder.count("/") == 1}
    lacking = {folder for folder in folders if not any(f"{path}/".startswith(f"{folder}/") for path in named)}
    assert not lacking, f"ARCHITECTURE.md says nothing of {sorted(lacking)}"


def test_every_path_that_a_text_names_is_there() -> None:
    texts = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / path for top in PACKAGES for path in sources(top))]
    told = {(text, path) for text in texts if text.name != "CHANGELOG.md" for path in PATH.findall(text.read_text())}
    gone = [f"{text.relative_to(ROOT)}: {path}" for text, path in told if not (ROOT / path).exists()]
    assert not gone  # CHANGELOG.md tells of earlier trees


@cache
def classes(package: str) -> dict[str, list[tuple[str, tuple[str, ...]]]]:
    """Return the classes of a package's modules by name: where each is defined, and the names of its bases."""
    found = defaultdict(list)
    for path in sources(package):
        for node in ast.parse((ROOT / path).read_text()).body:
            if isinstance(node, ast.ClassDef):
                found[node.name].append((path, tuple(ast.unparse(base).rpartition(".")[2] for base in node.bases)))
    return found


def test_a_class_name_stands_once_in_all_packages() -> None:
    places = defaultdict(list)
    for package in PACKAGES:
        for name, defined in classes(package).items():
            places[name] += [path for path, _ in defined]
    twice = {name: paths for name, paths in places.items() if len(paths) > 1 and not name.startswith("_")}
    assert not twice, f"one name, several classes; say of what each is one: {twice}"


def test_errors_are_in_one_module_a_package_whose_text_shows_their_tree() -> None:
    errors, known = {}, {"Exception", "BaseException"}
    while True:  # classes below those that are known, wherever they are
        more = {
            name: path
            for package in PACKAGES
            for name, defined in classes(package).items()
            for path, bases in defined
            if set(bases) & known and name not in known
        }
        if not more:
            break
        errors |= more
        known |= set(more)
    elsewhere = {name: path for name, path in errors.items() if path.count("/") != 1 or not path.endswith("/errors.py")}
    assert not elsewhere, f"errors belong to their package's errors.py: {elsewhere}"
    for package in PACKAGES:
        module = importlib.import_module(f"{package}.errors")
        told = dict(re.findall(r"^ +(\w+) +(\d+) ", module.__doc__ or "", re.MULTILINE))
        own = {name: str(getattr(module, name).exit_code) for name, path in errors.items() if path == f"{package}/errors.py"}
        assert own.items() <= told.items(), f"{package}/errors.py: the text says {told}, the classes are {own}"


def test_an_alias_of_an_array_is_defined_once() -> None:
    """Names such as `Floats` mean one thing, and come from scenes/arrays.py."""
    places = defaultdict(list)
    for path in (path for package in PACKAGES for path in sources(package)):
        for node in ast.parse((ROOT / path).read_text()).body:
            if isinstance(node, ast.Assign) and re.fullmatch(r"NDArray\[np\.\w+\]", ast.unparse(node.value)):
                places[ast.unparse(node.targets[0])].append(path)
    twice = {name: paths for name, paths in places.items() if len(paths) > 1}
    assert not twice, f"one name, several definitions; move it to scenes/arrays.py: {twice}"
