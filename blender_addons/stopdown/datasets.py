"""Open Dataset: the clips and labels of a dataset's folder, or of one of its versions, as a list in the panel."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

import bpy
from bpy.props import StringProperty

from .choices import absolute
from .reports import reporting
from .sweep import show_image


class STOPDOWN_OT_open_dataset(bpy.types.Operator):
    """List the clips and labels of a dataset's folder, or of one of its versions"""

    bl_idname = "stopdown.open_dataset"
    bl_label = "Open Dataset"

    directory: StringProperty(subtype="DIR_PATH")
    ref: StringProperty(name="Version", description="a version or tag; if empty, the content of the folder")

    @reporting
    def execute(self, context: Any) -> Set[str]:
        """Read the labels."""
        session = context.window_manager.stopdown
        folder = absolute(self.directory or session.out)
        ref = self.ref or session.ref
        rows = rows_of(folder, ref)
        session.out = str(folder)
        session.rows.clear()
        session.row = 0
        for row in rows:
            entry = session.rows.add()
            entry.name = entry.clip_id = row["clip_id"]
            entry.labels, entry.caption, entry.path = row["labels"], row["caption"], row["path"]
        self.report({"INFO"}, f"{folder.name}{f' at {ref}' if ref else ''}: {len(rows)} clips")
        return {"FINISHED"}


class STOPDOWN_OT_open_clip(bpy.types.Operator):
    """Show the chosen clip in the image editor"""

    bl_idname = "stopdown.open_clip"
    bl_label = "Show Clip"

    @classmethod
    def poll(cls, context: Any) -> bool:
        """A clip must be chosen."""
        session = context.window_manager.stopdown
        return 0 <= session.row < len(session.rows)

    @reporting
    def execute(self, context: Any) -> Set[str]:
        """Load the clip as a movie and show it."""
        from scenes.errors import InputError

        session = context.window_manager.stopdown
        row = session.rows[session.row]
        try:
            image = bpy.data.images.load(row.path, check_existing=True)
        except RuntimeError:
            raise InputError(f"{row.path} is not there any more; open the dataset again") from None
        image.name = row.clip_id
        shown = show_image(context, image)
        self.report({"INFO"}, f"{row.clip_id}: {row.labels}" + ("" if shown else "; open an Image Editor to see it"))
        return {"FINISHED"}


class STOPDOWN_UL_clips(bpy.types.UIList):
    """Clips with their labels."""

    def draw_item(self, _context: Any, layout: Any, _data: Any, row: Any, _icon: int, _holder: Any, _chosen: str) -> None:
        """Draw one line."""
        split = layout.split(factor=0.55)
        split.label(text=row.clip_id, icon="FILE_MOVIE")
        split.label(text=row.labels)


def rows_of(folder: Any, ref: str) -> list[dict[str, str]]:
    """Return id, labels as words, caption and file of each clip; raises InputError as `stopdown show` and `verify` do."""
    from generator.versions.history.history import History
    from generator.versions.reading.dataset import Dataset
    from generator.versions.working.working_folder import WorkingFolder

    if ref:
        history = History.open(folder)
        snapshot = Dataset(history, history.version(ref))
        return [_row(clip.labels, clip.path) for clip in snapshot]
    opened = WorkingFolder.open(folder)
    return [_row(row, opened.clip_path(row["clip_id"])) for row in opened.labels.to_pylist()]


def _row(labels: dict[str, Any], path: Any) -> dict[str, str]:
    from scenes.axes import AXES

    words = [
        f"{axis.format(labels[axis.column])} (c {labels[f'{name}_control']:+.2f})"
        for name, axis in AXES.items()
        if labels.get(axis.column) is not None
    ]
    return {"clip_id": labels["clip_id"], "labels": ", ".join(words), "caption": labels["caption"], "path": str(path)}


_CLASSES = (STOPDOWN_OT_open_dataset, STOPDOWN_OT_open_clip, STOPDOWN_UL_clips)


def register() -> None:
    """Register the operators and the list."""
    for kind in _CLASSES:
        bpy.utils.register_class(kind)


def unregister() -> None:
    """Remove the operators and the list."""
    for kind in reversed(_CLASSES):
        bpy.utils.unregister_class(kind)
