"""The labelled grid of a sweep: a row per prompt, seed and mode, a column per value; as a picture and as a video.

Array legend: T frames, H rows, W columns, 3 channels (sRGB, uint8).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from generator.contact_sheet import ACCENT, FAINT, INK, LINE, PAPER
from generator.gallery import signed
from trainer.generation.plan import Row, Video

Bytes = NDArray[np.uint8]
Frames = Callable[[Video], Bytes]  # a video's frames [T, H, W, 3]

MARGIN_PX, GAP_PX = 40, 10
HEAD_PX, CAPTION_PX, LABEL_PX, FOOT_PX = 84, 30, 20, 22
WIDTH_PX = 1800
LEAST_CELL_PX, MOST_CELL_PX = 96, 512
MOST_TALL_PX = 2160  # of a grid that plays; players and encoders balk at taller ones


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The page without its pictures, and where each of them goes: left, top; all are `cell` pixels wide and high."""

    page: Image.Image
    cell: tuple[int, int]
    places: Mapping[str, tuple[int, int]]  # a video's name -> left, top


def lay_out(rows: Sequence[Row], title: str, facts: str, picture: tuple[int, int]) -> Layout:
    """Return the layout of a grid of videos of `picture` = (width, height) pixels, at most `WIDTH_PX` wide.

    Rows with more columns than fit are broken into several lines; cells shrink, to a limit, until the page can be played.
    """
    columns = len(rows[0].videos)
    room_px = WIDTH_PX - 2 * MARGIN_PX
    per_line = min(columns, (room_px + GAP_PX) // (LEAST_CELL_PX + GAP_PX))
    lines = -(-columns // per_line)
    under_px = LABEL_PX * max(1, len(rows[0].videos[0].labels)) + 8
    spare_px = MOST_TALL_PX - HEAD_PX - MARGIN_PX - len(rows) * (CAPTION_PX + FOOT_PX + lines * under_px)
    by_height_px = spare_px / (len(rows) * lines) * picture[0] / picture[1]
    by_width_px = (room_px + GAP_PX) // max(per_line, 3) - GAP_PX
    wide_px = max(LEAST_CELL_PX, int(min(MOST_CELL_PX, by_width_px, by_height_px)))
    cell = (wide_px, max(2, round(wide_px * picture[1] / picture[0])))
    line_px = cell[1] + under_px
    row_px = CAPTION_PX + lines * line_px + FOOT_PX
    width_px = 2 * MARGIN_PX + max(per_line, 3) * (wide_px + GAP_PX) - GAP_PX
    size = (_even(width_px), _even(HEAD_PX + row_px * len(rows) + MARGIN_PX // 2))
    page = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(page)
    headings = ((title, 18, INK, _font("DejaVuSerif", 24)), (facts, 54, FAINT, _font("DejaVuSans", 12)))
    for words, top, ink, font in headings:
        draw.text((MARGIN_PX, top), _fitted(draw, words, width_px - 2 * MARGIN_PX, font), ink, font)
    places: dict[str, tuple[int, int]] = {}
    for number, row in enumerate(rows):
        top = HEAD_PX + number * row_px
        _caption(draw, row, top, width_px)
        for at, video in enumerate(row.videos):
            line, column = divmod(at, per_line)
            left, cell_top = MARGIN_PX + column * (wide_px + GAP_PX), top + CAPTION_PX + line * line_px
            places[video.name] = (left, cell_top)
            _labels(draw, video, left, cell_top + cell[1] + 4, wide_px)
    return Layout(page=page, cell=cell, places=places)


def still_grid(layout: Layout, rows: Sequence[Row], frames: Frames) -> Bytes:
    """Return the page [H, W, 3] with the middle frame of every video."""
    page = layout.page.copy()
    for video in (video for row in rows for video in row.videos):
        frames_THW3 = frames(video)
        page.paste(_scaled(frames_THW3[len(frames_THW3) // 2], layout.cell), layout.places[video.name])
    return np.asarray(page)


def moving_grid(layout: Layout, rows: Sequence[Row], frames: Frames) -> Bytes | None:
    """Return the page [T, H, W, 3] with every video playing; None for stills and for a page taller than `MOST_TALL_PX`."""
    if layout.page.height > MOST_TALL_PX:
        return None
    page = np.asarray(layout.page)
    playing: Bytes | None = None
    wide_px, tall_px = layout.cell
    for video in (video for row in rows for video in row.videos):
        frames_THW3 = frames(video)
        if len(frames_THW3) == 1:
            return None
        if playing is None:
            playing = np.repeat(page[None], len(frames_THW3), axis=0)
        left, top = layout.places[video.name]
        for at, frame_HW3 in enumerate(frames_THW3):
            playing[at, top : top + tall_px, left : left + wide_px] = np.asarray(_scaled(frame_HW3, layout.cell))
    return playing


def row_words(row: Row) -> str:
    """Return what tells a row from others besides its prompt."""
    return f"seed {row.seed}  ·  {row.mode}"


def _caption(draw: ImageDraw.ImageDraw, row: Row, top: int, width_px: int) -> None:
    right = width_px - MARGIN_PX
    draw.line((MARGIN_PX, top, right, top), LINE)
    small, italic = _font("DejaVuSans", 11), _font("DejaVuSerif-Italic", 13)
    words = row_words(row)
    room_px = right - MARGIN_PX - draw.textlength(words, small) - 16
    draw.text((MARGIN_PX, top + 7), _fitted(draw, row.prompt, room_px, italic), INK, italic)
    draw.text((right - draw.textlength(words, small), top + 8), words, FAINT, small)


def _labels(draw: ImageDraw.ImageDraw, video: Video, left: int, top: int, room_px: int) -> None:
    swept = [(name, control) for name, control in video.controls if name in video.given]
    font, small = _font("DejaVuSerif", 14), _font("DejaVuSansMono", 11)
    if not swept:
        draw.text((left, top), "no control", FAINT, font)
    for line, ((_, control), value) in enumerate(zip(swept, video.labels, strict=True)):
        written = signed(control, 2)
        draw.text((left, top + line * LABEL_PX), value, INK, font)
        if draw.textlength(value, font) + draw.textlength(written, small) + 8 <= room_px:
            draw.text((left + room_px - draw.textlength(written, small), top + line * LABEL_PX + 3), written, ACCENT, small)


def _fitted(draw: ImageDraw.ImageDraw, text: str, room_px: float, font: ImageFont.FreeTypeFont) -> str:
    """Return a text, cut with an ellipsis where it does not fit on its line."""
    if draw.textlength(text, font) <= room_px:
        return text
    while text and draw.textlength(f"{text}…", font) > room_px:
        text = text[:-1]
    return f"{text.rstrip()}…"


def _scaled(frame_HW3: Bytes, cell: tuple[int, int]) -> Image.Image:
    return Image.fromarray(frame_HW3).resize(cell, Image.Resampling.LANCZOS)


def _even(length_px: int) -> int:
    return length_px + length_px % 2  # yuv420p halves both sides


def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    # matplotlib carries these faces, so grids look the same on every machine
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"), size)
