"""The files of a scene of one's own: a .blend and, beside it, its marks (`shot.blend`, `shot.marks.json`)."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from generator.files import write_atomic
from generator.recipe import Recipe
from scenes.errors import InputError
from scenes.families.blend import Marks

FOLDER = "scenes"  # under DATASET/.stopdown: the .blend files that its clips are rendered from, by sha256


def marks_path(file: Path) -> Path:
    """Return where the marks of a .blend lie."""
    return file.with_suffix(".marks.json")


def file_sha256(file: Path) -> str:
    """Return the sha256 of a .blend file; raises InputError where there is none."""
    if file.suffix != ".blend":
        raise InputError(f"{file} does not end in .blend; a scene of your own is a Blender file")
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}") from None


def read_marks(file: Path) -> Marks:
    """Return the marks of a .blend; raises InputError where it was never marked, or has changed since."""
    path, digest = marks_path(file), file_sha256(file)
    try:
        marks = Marks.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{file} is not marked (there is no {path.name} beside it); run `stopdown mark {file}`") from None
    except (ValidationError, UnicodeDecodeError, OSError) as error:
        raise InputError(f"{path} cannot be read ({type(error).__name__}); run `stopdown mark {file}` again") from None
    if marks.sha256 != digest:
        raise InputError(f"{file} has changed since it was marked; run `stopdown mark {file}` again")
    return marks


def with_marks(tree: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return a recipe's tree with the marks of its [scene] file, which lies at a path relative to `folder`."""
    scene = tree.get("scene")
    if not isinstance(scene, dict) or not isinstance(scene.get("file"), str) or "marks" in scene:
        return tree
    marks = read_marks(folder / scene["file"]).model_dump(mode="json")
    return tree | {"scene": scene | {"marks": marks}}


def take_in(recipe: Recipe, folder: Path | None, root: Path) -> None:
    """Copy the .blend of a recipe into a dataset's store, once, for its render processes; `folder` is the recipe's.

    Raises InputError where the file is not the one that was marked.
    """
    if recipe.scene is None or recipe.scene.marks is None:
        return
    marks = recipe.scene.marks
    kept = root / FOLDER / f"{marks.sha256}.blend"
    if kept.is_file():
        return
    if folder is None:
        raise InputError(f"the dataset does not hold {marks.file} yet, and the build was not told where the recipe lies")
    file = folder / recipe.scene.file
    if file_sha256(file) != marks.sha256:
        raise InputError(f"{file} has changed since it was marked; run `stopdown mark {file}` again")
    if shutil.disk_usage(root.parent if not root.exists() else root).free < file.stat().st_size:
        raise InputError(f"no space for a copy of {file} in {root}; free some or choose another disk")
    write_atomic(kept, file.read_bytes(), mode=0o444)
