"""Text in pictures, whatever its script: each character by the first font here that has it.

First the faces that matplotlib carries, so that grids look the same on every machine, then the system's, then those of Blender
(which has them for 20 scripts) where it is installed. What none of them has is drawn as an empty box, and can be asked for.
"""

from __future__ import annotations

import importlib.util
import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import groupby
from pathlib import Path

import matplotlib
from matplotlib.font_manager import findSystemFonts
from PIL import ImageDraw, ImageFont

BOX = "□"
NO_CHARACTER = "\U0010fffe"  # which no font has: what it draws is what a font draws for what it lacks
INVISIBLE = ("Cc", "Cf", "Mn")  # marks that join or colour emoji, controls: nothing to draw where their script is not shaped
Colour = tuple[int, int, int] | str
Run = tuple[ImageFont.FreeTypeFont, str]


def one_line(text: str) -> str:
    """Return a text for one line of a picture: every run of blanks and line ends is one blank."""
    return " ".join(text.split())


def width(draw: ImageDraw.ImageDraw, text: str, name: str, size: int) -> float:
    """Return how many pixels a line takes in the face of a name (`DejaVuSerif`)."""
    return sum(draw.textlength(part, font) for font, part in _runs(text, name, size))


def draw_line(draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str, ink: Colour, name: str, size: int) -> None:
    """Draw a line of text, left and top given, in the face of a name and in others where that lacks a character."""
    left, top = place
    baseline = top + _own(name, size).getmetrics()[0]
    for font, part in _runs(text, name, size):
        draw.text((left, baseline), part, ink, font, anchor="ls")
        left += draw.textlength(part, font)


def fitted(draw: ImageDraw.ImageDraw, text: str, room_px: float, name: str, size: int) -> str:
    """Return a text on one line, cut with an ellipsis where it does not fit."""
    line = one_line(text)
    if width(draw, line, name, size) <= room_px:
        return line
    low, high = 0, len(line)  # the longest beginning that fits
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if width(draw, f"{line[:middle]}…", name, size) <= room_px else (low, middle - 1)
    return f"{line[:low].rstrip()}…"


def not_drawable(texts: Iterable[str], name: str = "DejaVuSans") -> str:
    """Return the characters of texts that no font here has, each once."""
    return "".join(dict.fromkeys(c for text in texts for c in one_line(text) if _drawn(c) and _path_for(c, name) is None))


def _runs(text: str, name: str, size: int) -> Iterator[Run]:
    """Yield a text's parts, each with a font that has all of its characters."""
    paths = []
    for character in one_line(text):
        if _drawn(character):
            path = _path_for(character, name)
            paths.append((character, path) if path is not None else (BOX, str(_carried(name))))
    for path, members in groupby(paths, key=lambda pair: pair[1]):
        yield _font(path, size), "".join(character for character, _ in members)


def _drawn(character: str) -> bool:
    return unicodedata.category(character) not in INVISIBLE or "\u0300" <= character <= "\u036f"  # accents are drawn


@lru_cache(maxsize=4096)
def _path_for(character: str, name: str) -> str | None:
    own = [str(_carried(name)), str(_carried("DejaVuSans"))]
    return next((path for path in (*own, *_others()) if _has(path, character)), None)


@lru_cache(maxsize=1)
def _others() -> tuple[str, ...]:
    """Return the fonts that this machine has, the plain faces first."""
    spec = importlib.util.find_spec("bpy")  # found, never imported
    folders = [Path(place) for place in spec.submodule_search_locations or ()] if spec is not None else []
    blender = [str(path) for folder in folders for path in sorted(folder.glob("*/datafiles/fonts/*.woff2"))]
    system = sorted(findSystemFonts(), key=lambda path: ("regular" not in path.lower(), path))
    return (*system, *blender)


@lru_cache(maxsize=4096)
def _has(path: str, character: str) -> bool:
    """Return whether a font has a picture of a character of its own."""
    if character.isspace():
        return True
    try:
        font = _font(path, 24)
        drawn, lacking = font.getmask(character), font.getmask(NO_CHARACTER)
    except (OSError, ValueError):  # a font of bitmaps, or a damaged one
        return False
    return bytes(drawn) != bytes(lacking) and drawn.getbbox() is not None


def _own(name: str, size: int) -> ImageFont.FreeTypeFont:
    return _font(str(_carried(name)), size)


def _carried(name: str) -> Path:
    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"


@lru_cache(maxsize=256)
def _font(path: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)
