"""Draws the extension's panels as a picture without a window: `python blender_addons/draw_panel.py docs/blender-panel.svg`.

The panels' own `draw` runs in the bpy module against a layout that notes what it is asked for. Every property, operator and
icon that a panel names is looked up in Blender, so that a wrong one fails here.
"""

from __future__ import annotations

import importlib.util
import sys
from html import escape
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

HERE = Path(__file__).resolve().parent
WIDTH, LINE, GAP, EDGE = 340, 24, 4, 10
RECIPE = HERE.parent / "examples" / "shutter.toml"


class Noting:
    """A layout that notes rows of boxes: (kind, text), several in a row where they lie side by side."""

    def __init__(self, rows: list[list[tuple[str, str]]], inside: list[tuple[str, str]] | None = None) -> None:
        self.rows, self._inside = rows, inside

    def row(self, **_: Any) -> Noting:
        """Return a layout whose boxes lie side by side."""
        self.rows.append([])
        return Noting(self.rows, self.rows[-1])

    def column(self, **_: Any) -> Noting:
        """Return a layout whose boxes lie under one another."""
        return Noting(self.rows)

    def split(self, **_: Any) -> Noting:
        """Return a layout like a row."""
        return self.row()

    def separator(self, **_: Any) -> None:
        """Leave a line free."""
        self._note("space", "")

    def label(self, text: str = "", icon: str = "NONE") -> None:
        """Note a text."""
        known_icon(icon)
        self._note("label", text)

    def progress(self, factor: float = 0.0, text: str = "") -> None:
        """Note a bar."""
        self._note("progress", text)

    def prop(self, data: Any, name: str, text: str | None = None, expand: bool = False, **_: Any) -> None:
        """Note a property with its value, each choice of its own where it is expanded."""
        entry = data.bl_rna.properties[name]
        value = getattr(data, name)
        words = entry.name if text is None else text
        if expand:
            for choice, _ in sys.modules["stopdown_panel.choices"].known(name):
                self._note("on" if choice in value else "button", choice)
        elif entry.type == "BOOLEAN":
            self._note("check" if value else "box", words)
        else:
            shown = f"{value:.{entry.precision}f}" if entry.type == "FLOAT" else str(value)
            is_path = entry.type == "STRING" and entry.subtype in ("FILE_PATH", "DIR_PATH")
            self._note("field", f"{words}: {Path(shown).name if is_path else shown}")

    def operator(self, idname: str, text: str | None = None, icon: str = "NONE") -> None:
        """Note a button."""
        import bpy

        known_icon(icon)
        group, name = idname.split(".")
        kind = getattr(getattr(bpy.ops, group), name).get_rna_type()
        self._note("button", kind.name if text is None else text)

    def template_list(self, kind: str, _id: str, data: Any, name: str, active: Any, chosen: str, rows: int = 5) -> None:
        """Note a list, by its rows."""
        import bpy

        assert hasattr(bpy.types, kind), kind
        assert chosen in active.bl_rna.properties, chosen
        for entry in getattr(data, name)[:rows]:
            self._note("label", f"{entry.clip_id}  {entry.labels}")

    def _note(self, kind: str, text: str) -> None:
        if self._inside is None:
            self.rows.append([(kind, text)])
        else:
            self._inside.append((kind, text))


def known_icon(icon: str) -> None:
    """Fail for an icon that Blender does not have."""
    import bpy

    assert icon in bpy.types.UILayout.bl_rna.functions["label"].parameters["icon"].enum_items, icon


def extension() -> ModuleType:
    """Import the extension from its sources, under a name of its own."""
    where = HERE / "stopdown"
    spec = importlib.util.spec_from_file_location(
        "stopdown_panel", where / "__init__.py", submodule_search_locations=[str(where)]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def noted_panels() -> list[tuple[str, list[list[tuple[str, str]]]]]:
    """Return each panel's title and rows, with a recipe open and one of its clips drawn."""
    import bpy

    addon = extension()
    addon.register()
    bpy.ops.stopdown.open_recipe(filepath=str(RECIPE))
    bpy.ops.stopdown.draw_scene()
    session = bpy.context.window_manager.stopdown
    session.out = "//datasets/shutter"
    row = session.rows.add()
    row.clip_id, row.labels, row.caption = session.clip, "1/80 (c +0.00)", "A red cube glides from left to right."
    panels = []
    for kind in sys.modules[f"{addon.__name__}.panel"]._CLASSES:
        rows: list[list[tuple[str, str]]] = []
        kind.draw(SimpleNamespace(layout=Noting(rows)), bpy.context)
        panels.append((kind.bl_label, rows))
    addon.unregister()
    return panels


def svg(panels: list[tuple[str, list[list[tuple[str, str]]]]]) -> str:
    """Return a picture of the panels, one under another."""
    parts: list[str] = []
    y = EDGE
    for title, rows in panels:
        parts.append(f'<text x="{EDGE}" y="{y + 16}" class="title">▾ {escape(title)}</text>')
        y += LINE + GAP
        for row in [row for row in rows if row]:
            width = (WIDTH - 2 * EDGE - GAP * (len(row) - 1)) / len(row)
            for index, (kind, text) in enumerate(row):
                parts.append(_box(kind, text, EDGE + index * (width + GAP), y, width))
            y += LINE + GAP
        y += GAP
    style = (
        "text{font:12px sans-serif;fill:#e6e6e6}.title{font-weight:bold}.field{fill:#545454}.button{fill:#6b6b6b}"
        ".on{fill:#4772b3}.progress{fill:#4772b3}.check{fill:#4772b3}.box{fill:#545454}"
    )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}" viewBox="0 0 {WIDTH} {y}">'
    lines = [head, f"<style>{style}</style>", f'<rect width="{WIDTH}" height="{y}" fill="#303030"/>', *parts, "</svg>"]
    return "\n".join(lines) + "\n"


def _box(kind: str, text: str, x: float, y: float, width: float) -> str:
    if kind == "space":
        return ""
    most = int(width / 6.4)
    words = escape(text if len(text) <= most else text[: most - 1] + "…")
    if kind == "label":
        return f'<text x="{x + 4:g}" y="{y + 16}">{words}</text>'
    if kind in ("check", "box"):
        mark = f'<rect x="{x:g}" y="{y + 4}" width="16" height="16" rx="3" class="{kind}"/>'
        return f'{mark}<text x="{x + 22:g}" y="{y + 16}">{words}</text>'
    middle = kind in ("button", "on")
    anchor = f'x="{x + width / 2:g}" text-anchor="middle"' if middle else f'x="{x + 8:g}"'
    box = f'<rect x="{x:g}" y="{y}" width="{width:g}" height="{LINE}" rx="4" class="{kind}"/>'
    return f'{box}<text {anchor} y="{y + 16}">{words}</text>'


if __name__ == "__main__":
    import bpy  # noqa: F401 - first, as Blender itself is before any add-on

    Path(sys.argv[1]).write_text(svg(noted_panels()), encoding="utf-8")
