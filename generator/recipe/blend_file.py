"""The files of a custom .blend: a .blend and, beside it, its annotation (`shot.blend`, `shot.marks.json`)."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from generator.io.atomic import write_atomic
from generator.recipe.schema import Recipe
from scenes.errors import InputError
from scenes.families.blend_annotation import ANNOTATION_FORMAT, Annotation, RenderCost, check_caption

LFS_POINTER = b"version https://git-lfs"
BLEND_STARTS = (b"BLENDER", b"\x28\xb5\x2f\xfd", b"\x1f\x8b")  # plain, compressed with zstd, with gzip
FOLDER = "scenes"  # under DATASET/.stopdown: the .blend files that its clips are rendered from, by sha256


def annotation_path(file: Path) -> Path:
    """Return where the annotation of a .blend lies."""
    return file.with_suffix(".marks.json")


def check_blend(file: Path) -> None:
    """Raise InputError where a file is plainly no .blend file: empty, a Git LFS pointer, something else."""
    file_sha256(file)
    with file.open("rb") as opened:
        head = opened.read(64)
    if not head:
        raise InputError(f"{file} is empty; save it again from Blender")
    if head.startswith(LFS_POINTER):
        raise InputError(f"{file} is a Git LFS pointer, not the file; fetch it with `git lfs pull`")
    if not head.startswith(BLEND_STARTS):
        raise InputError(f"{file} is not a Blender file (it does not begin like one); give a .blend that Blender saved")


def file_sha256(file: Path) -> str:
    """Return the sha256 of a .blend file; raises InputError where there is none."""
    if file.suffix != ".blend":
        raise InputError(f"{file} does not end in .blend; give a Blender file")
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}") from None


def write_annotation(file: Path, annotation: Annotation, cost: RenderCost, notes: Sequence[str]) -> None:
    """Write the annotation of a .blend beside it; raises InputError where its folder cannot be written to."""
    tree = annotation.model_dump(mode="json") | {"cost": cost.model_dump(mode="json"), "notes": list(notes)}
    try:
        write_atomic(annotation_path(file), (json.dumps(tree, indent=1, ensure_ascii=False) + "\n").encode())
    except OSError as error:
        raise InputError(
            f"cannot write {annotation_path(file)}: {error.strerror}; copy the .blend to a folder you can write"
        ) from None


def read_notes(file: Path) -> list[str]:
    """Return the notes in the annotation of a .blend, one line each."""
    return [str(line) for line in _read_tree(file).get("notes", [])]


def read_annotation(file: Path) -> tuple[Annotation, RenderCost]:
    """Return the annotation of a .blend and what rendering it costs.

    Raises InputError where it was never marked, has changed since, or was marked without the checks of today.
    """
    path, digest = annotation_path(file), file_sha256(file)
    tree = _read_tree(file)
    try:
        if tree.get("format") != ANNOTATION_FORMAT:
            raise InputError(
                f"{path} was written by an earlier Stopdown, which took labels for verified that are not; run `stopdown mark "
                f"{file}` again"
            )
        cost = RenderCost.model_validate(tree.pop("cost", None))
        tree.pop("notes", None)
        annotation = Annotation.model_validate(tree)
        check_caption(annotation.caption)
    except ValueError as error:  # pydantic's too
        raise InputError(f"{path} cannot be read ({type(error).__name__}); run `stopdown mark {file}` again") from None
    if annotation.sha256 != digest:
        raise InputError(f"{file} has changed since it was marked; run `stopdown mark {file}` again")
    return annotation, cost


def _read_tree(file: Path) -> dict[str, Any]:
    path = annotation_path(file)
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{file} is not marked (there is no {path.name} beside it); run `stopdown mark {file}`") from None
    except (ValueError, OSError) as error:
        raise InputError(f"{path} cannot be read ({type(error).__name__}); run `stopdown mark {file}` again") from None
    if not isinstance(tree, dict):
        raise InputError(f"{path} cannot be read (no table); run `stopdown mark {file}` again")
    return tree


def with_annotation(tree: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return a recipe's tree with the annotation of its [scene] file, which lies at a path relative to `folder`."""
    scene = tree.get("scene")
    if not isinstance(scene, dict) or not isinstance(scene.get("file"), str) or "marks" in scene:
        return tree
    annotation, cost = read_annotation(folder / scene["file"])
    return tree | {"scene": scene | {"marks": annotation.model_dump(mode="json"), "cost": cost.model_dump(mode="json")}}


def take_in(recipe: Recipe, folder: Path | None, root: Path) -> None:
    """Copy the .blend of a recipe into a dataset's store, once, for its render processes; `folder` is the recipe's.

    Raises InputError where the file is not the one that was marked.
    """
    if recipe.scene is None or recipe.scene.marks is None:
        return
    annotation = recipe.scene.marks
    kept = root / FOLDER / f"{annotation.sha256}.blend"
    if kept.is_file():
        return
    if folder is None:
        raise InputError(f"the dataset does not hold {annotation.file} yet, and the build was not told where the recipe lies")
    file = folder / recipe.scene.file
    if file_sha256(file) != annotation.sha256:
        raise InputError(f"{file} has changed since it was marked; run `stopdown mark {file}` again")
    if shutil.disk_usage(root.parent if not root.exists() else root).free < file.stat().st_size:
        raise InputError(f"no space for a copy of {file} in {root}; free some or choose another disk")
    write_atomic(kept, file.read_bytes(), mode=0o444)
