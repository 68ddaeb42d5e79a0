"""How files of truth are named: by path in `truth/<scene>/`, and flat among a clip's lossless files in records and versions.

Every clip of a scene names the same objects, so the store holds them once, and what knows lossless frames (commits, gc, push,
pull, farms) knows truth without more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

TRUTH_FORMAT = 1
FOLDER = "truth"
SCENE_FILE = "scene.json"
SHARP_FILE = "sharp.mp4"
_PREFIX, _SLASH = "truth--", "--"  # a stored name has no slash, and the name of a frame begins with its number


def stored_name(path: str) -> str:
    """Return the name under which a record keeps a path inside `truth/<scene>/`."""
    return _PREFIX + path.replace("/", _SLASH)


def is_truth(name: str) -> bool:
    """Return whether a stored name is that of a file of truth."""
    return name.startswith(_PREFIX)


def truth_files(files: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return digests by path inside `truth/<scene>/`, of a clip's stored files."""
    return {name.removeprefix(_PREFIX).replace(_SLASH, "/"): digest for name, digest in files if is_truth(name)}


def frame_files(files: Mapping[str, str]) -> dict[str, str]:
    """Return the digests of a clip's own lossless frames, by name."""
    return {name: digest for name, digest in files.items() if not is_truth(name)}


def view_path(clip_id: str, scene_id: str, name: str) -> str:
    """Return where a dataset folder shows a clip's stored file."""
    if not is_truth(name):
        return f"frames/{clip_id}/{name}"
    return f"{FOLDER}/{scene_id}/{name.removeprefix(_PREFIX).replace(_SLASH, '/')}"


def frame_file(kind: str, frame: int) -> str:
    """Return the path of one frame's picture: depth, flow_forward, flow_backward, instances, normals, sharp."""
    return f"{kind}/{frame:04d}.{'exr' if kind in ('depth', 'normals') else 'png'}"
