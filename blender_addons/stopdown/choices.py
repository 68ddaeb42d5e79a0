"""What there is to choose, and the plan that the panel's fields imply; Stopdown's packages are imported when first asked."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import bpy

from .toml_text import toml_text

if TYPE_CHECKING:
    from generator.recipe.plan import Plan
    from generator.recipe.schema import Recipe


def known(kind: str) -> list[tuple[str, str]]:
    """Return (name, words) of the axes, the families or the fidelities; none where Stopdown's packages are missing."""
    try:
        from scenes.axes import AXES
        from scenes.families import FAMILIES
        from scenes.shading import Fidelity
    except ModuleNotFoundError:
        return []
    if kind == "fidelities":
        return [(name, "") for name in get_args(Fidelity)]
    if kind == "axes":
        return [(name, f"{' to '.join(axis.effect_words)}") for name, axis in AXES.items()]
    return [(name, family.summary) for name, family in FAMILIES.items()]


def absolute(path: str) -> Path:
    """Return a path of a Blender field as the file system knows it (`//` is the folder of the .blend)."""
    return Path(bpy.path.abspath(path)) if path else Path()


def tree_of(session: Any, folder: Path | None = None) -> dict[str, Any]:
    """Return the recipe as TOML's tree: the file's own, where one is open, with the panel's fields in it.

    `folder` is where the recipe is to lie, if not where it does: a scene file there is named without it. Raises InputError
    where the file cannot be read, or has no pyramid of the chosen number.
    """
    from generator.recipe.load import parse_tree, read_text
    from scenes.errors import InputError

    path = absolute(session.recipe)
    tree = parse_tree(read_text(path), source=str(path)) if session.recipe and path.exists() else {}
    tree["name"], tree["seed"] = session.dataset_name, session.seed
    tree.setdefault("video", {}).update(width=session.width, height=session.height)
    tree.setdefault("render", {})["fidelity"] = session.fidelity
    if "blend" in session.families and session.scene_file:
        tree["scene"] = {"family": "blend", "file": _named_from(session, folder)}
    pyramids = tree.setdefault("pyramid", [{}])
    if session.pyramid >= len(pyramids):
        raise InputError(f"pyramid {session.pyramid}: the recipe has {len(pyramids)}; number them 0 to {len(pyramids) - 1}")
    pyramids[session.pyramid].update(
        axes=ordered(session.axes, "axes"),
        family=ordered(session.families, "families"),
        layers=numbers(session.layers),
        frames=numbers(session.frames),
        scenes_per_layer=session.scenes_per_layer,
    )
    return tree


def _named_from(session: Any, folder: Path | None) -> str:
    file = absolute(session.scene_file)
    folder = folder or (absolute(session.recipe).parent if session.recipe else None)
    return file.relative_to(folder).as_posix() if folder is not None and file.is_relative_to(folder) else str(file)


def ordered(chosen: set[str], kind: str) -> list[str]:
    """Return chosen names in the registry's order."""
    return [name for name, _ in known(kind) if name in chosen]


def numbers(text: str) -> list[int | str]:
    """Return comma-separated whole numbers; what is none stays text, for the recipe's own check to complain about."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    return [int(word) if word.isdigit() else word for word in words]


def recipe_of(session: Any) -> Recipe:
    """Return the recipe that the panel's fields imply; raises InputError in the words of the command line."""
    return _parsed(toml_text(tree_of(session)), source_of(session))


def plan_of(session: Any) -> Plan:
    """Return the plan that the panel's fields imply; raises InputError and SceneError in the words of the command line."""
    return plan_of_text(toml_text(tree_of(session)), source_of(session))


def source_of(session: Any) -> str:
    """Return what errors call the recipe; its folder is that of a scene file's relative path."""
    return str(absolute(session.recipe)) if session.recipe else "the panel"


@lru_cache(maxsize=2)
def plan_of_text(text: str, source: str) -> Plan:
    """Return the plan of a recipe's text, drawn once."""
    from generator.recipe.plan import make_plan

    return make_plan(_parsed(text, source))


def _parsed(text: str, source: str) -> Recipe:
    from generator.recipe.blend_file import with_annotation
    from generator.recipe.load import parse_tree, validate
    from generator.recipe.schema import Recipe

    return validate(Recipe, with_annotation(parse_tree(text, source=source), Path(source).parent), source)


def clip_ids(session: Any) -> list[str]:
    """Return the ids of the plan's clips; none while the fields make no plan."""
    try:
        from scenes.errors import StopdownError
    except ModuleNotFoundError:
        return []
    try:
        return [clip.clip_id for clip in plan_of(session).clips]
    except (StopdownError, ModuleNotFoundError):
        return []
