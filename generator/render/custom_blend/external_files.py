"""What a custom .blend needs beside itself: a dataset keeps a copy of the one file, so all that it shows must be in it.

Only what the scene's picture uses counts: an image that no rendered material reaches may be missing. Import it only in a
process that renders.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import bpy

from scenes.errors import InputError


def refuse_outside_files(scene: Any, name: str) -> None:
    """Raise InputError where something that is rendered lies in another file, or is missing."""
    used = reached(scene)
    outside = sorted(set(_needed(used)))
    if outside:
        raise InputError(
            f"{name} needs {len(outside)} files beside it ({outside[0]}); pack them "
            "(File > External Data > Pack Resources) or make linked data local, save, and mark it again"
        )


def reached(scene: Any) -> set[Any]:
    """Return every data-block that a scene leads to."""
    uses: dict[Any, list[Any]] = {}
    for data, users in bpy.data.user_map().items():
        for user in users:
            uses.setdefault(user, []).append(data)
    seen, waiting = {scene}, deque([scene])
    while waiting:
        for data in uses.get(waiting.popleft(), ()):
            if data not in seen and data.bl_rna.identifier != "Scene":
                seen.add(data)
                waiting.append(data)
    background = scene.background_set
    return seen if background is None or background in seen else seen | reached(background)


def _needed(used: set[Any]) -> Iterator[str]:
    for data in used:
        library = data.library
        if library is not None and not getattr(data, "is_linked_packed", False) and library.packed_file is None:
            yield library.filepath
        elif data.is_missing:
            yield data.name
        kind = data.bl_rna.identifier
        unpacked = kind in ("VectorFont", "Volume") and data.packed_file is None and data.filepath not in ("", "<builtin>")
        if unpacked or kind == "CacheFile":
            yield data.filepath
        elif kind.endswith("Texture") and getattr(data, "image", None) is not None:
            yield from _of_image(data.image)
        elif kind == "Object":
            values = [value for modifier in data.modifiers if modifier.type == "NODES" for value in modifier.values()]
            for image in values:
                if isinstance(image, bpy.types.Image):
                    yield from _of_image(image)
    for tree in _trees(used):
        for node in live_nodes(tree):
            sockets = [socket.default_value for socket in node.inputs if socket.type == "IMAGE" and not socket.is_linked]
            for image in (getattr(node, "image", None), *sockets):
                if image is not None:
                    yield from _of_image(image)
            if node.bl_idname == "ShaderNodeTexIES" and node.mode == "EXTERNAL" and node.filepath:
                yield node.filepath
            if node.bl_idname == "ShaderNodeScript" and node.mode == "EXTERNAL" and node.filepath:
                yield node.filepath


def _of_image(image: Any) -> Iterator[str]:
    made_here = image.source in ("GENERATED", "VIEWER") and not image.filepath
    if not made_here and not image.packed_files and image.packed_file is None and image.filepath:
        yield image.filepath


def _trees(used: set[Any]) -> Iterator[Any]:
    """Yield the node trees of what is rendered; the compositor's is not used."""
    for data in used:
        tree = data if data.bl_rna.identifier.endswith("NodeTree") else getattr(data, "node_tree", None)
        if tree is not None and tree.bl_idname != "CompositorNodeTree":
            yield tree


def live_nodes(tree: Any) -> list[Any]:
    """Return the nodes of a tree that lead to one of its outputs, muted ones left out."""
    into: dict[str, list[Any]] = {}
    for link in tree.links:
        if not link.is_muted:
            into.setdefault(link.to_node.name, []).append(link.from_node)
    waiting = [node for node in tree.nodes if node.bl_idname.startswith(("ShaderNodeOutput", "TextureNodeOutput"))]
    waiting += [node for node in tree.nodes if node.bl_idname == "NodeGroupOutput"]
    seen: dict[str, Any] = {}
    while waiting:
        node = waiting.pop()
        if node.name not in seen:
            seen[node.name] = node
            waiting += into.get(node.name, [])
            paired = getattr(node, "paired_output_node", None)
            waiting += [paired] if paired is not None else []
            waiting += [other for other in tree.nodes if getattr(other, "paired_output_node", None) == node]
    return [node for node in seen.values() if not node.mute]
