"""Whether named objects of a custom .blend are rendered, and blurred, as they are marked.

Import it only in a process that renders.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import bpy

from generator.render.custom_blend.animation import all_data, animated
from generator.render.custom_blend.frame_walk import SEEN_TYPES
from scenes.errors import InputError


def refuse_unseen(thing: Any, scene: Any, layer: Any) -> None:
    """Raise InputError with the reason where an object is not in the rendered picture, or not as itself."""
    why = _why_unseen(thing, scene, layer)
    if why:
        raise InputError(f"'{thing.name}' {why}; show it in renders, or mark an object that is, save, and mark the file again")


def _why_unseen(thing: Any, scene: Any, layer: Any) -> str:
    if thing.type not in SEEN_TYPES and thing.instance_type == "NONE":
        return f"is of type {thing.type}, which no render shows"
    if thing.hide_render:
        return "is hidden in renders (Object > Visibility > Renders)"
    if thing.name not in layer.objects:
        return f"is not in view layer '{layer.name}', which is rendered (its collection is excluded there)"
    if not any(True for _ in _shown_branches(thing, layer)):
        return "lies only in collections that are hidden in renders"
    if not thing.visible_camera:
        return "is hidden from the camera (Object > Visibility > Ray Visibility)"
    if thing.is_holdout or all(branch.holdout for branch in _shown_branches(thing, layer)):
        return "is a holdout: a hole in the picture"
    if all(branch.indirect_only for branch in _shown_branches(thing, layer)):
        return "lies in an indirect-only collection"
    if thing.is_shadow_catcher:
        return "is a shadow catcher, which shows shadows only"
    keyed = [found for found in animated(thing) if found.path in ("hide_render", "visible_camera", "is_holdout")]
    if any(not found.driven for found in keyed):
        return f"has keys on {keyed[0].path}: it comes and goes"
    return ""


def _shown_branches(thing: Any, layer: Any) -> Iterator[Any]:
    """Yield the layer's collections through which an object is rendered."""
    waiting = [layer.layer_collection]
    while waiting:
        branch = waiting.pop()
        if branch.exclude or branch.collection.hide_render:
            continue
        if thing.name in branch.collection.objects:
            yield branch
        waiting += list(branch.children)


def refuse_unblurred(thing: Any, deforms: bool) -> None:
    """Raise InputError where an object moves without motion blur: every exposure would look the same."""
    if not thing.cycles.use_motion_blur:
        raise InputError(
            f"motion blur of '{thing.name}' is off, so no exposure blurs it; switch it on (Object > Motion Blur), save, and "
            "mark the file again"
        )
    if deforms and not thing.cycles.use_deform_motion:
        raise InputError(
            f"'{thing.name}' is moved by its modifiers and its Deformation motion blur is off; switch it on "
            "(Object > Motion Blur > Deformation), save, and mark the file again"
        )


def leading_to(things: Iterable[Any]) -> set[Any]:
    """Return what the given objects' shape and place may come from: parents, constraints, modifiers, data, node groups."""
    uses: dict[Any, list[Any]] = {}
    for data, users in bpy.data.user_map().items():
        for user in users:
            uses.setdefault(user, []).append(data)
    seen, waiting = set(), [thing for thing in things if thing is not None]
    while waiting:
        data = waiting.pop()
        if data not in seen and data.bl_rna.identifier not in ("Scene", "Collection"):
            seen.add(data)
            waiting += uses.get(data, [])
    return seen


def refuse_blocked_drivers(things: Iterable[Any]) -> None:
    """Raise InputError for a Python driver on what leads to these objects: scripts are not run, so it would stand still."""
    for data in leading_to(things):
        for path in blocked(data):
            raise InputError(
                f"the driver of {data.name}: {path} is Python, which is never run from a .blend; bake it to keys "
                "(Object > Animation > Bake Action) or write a simple expression, save, and mark the file again"
            )


def blocked(data: Any) -> list[str]:
    """Return the paths of a data-block that Python drivers move, which stand still here; keep simple expressions out."""
    drivers = [found for found in animated(data) if found.driven and not found.curve.mute]
    return [
        found.path for found in drivers if found.curve.driver.type == "SCRIPTED" and not found.curve.driver.is_simple_expression
    ]


def blocked_words() -> list[str]:
    """Return a note on the Python drivers of the whole file, where there are any."""
    paths = sorted({f"{data.name}: {path}" for data in all_data() for path in blocked(data)})
    if not paths:
        return []
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    return [f"Python drivers are not run: {', '.join(paths[:3])}{more} stay as saved"]
