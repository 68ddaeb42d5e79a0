"""The labelled grid of a sweep: a row per prompt, seed and mode, a column per value; as a picture and as a video.

Array legend: T frames, H rows, W columns, 3 channels (sRGB, uint8).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from generator.web.contact_sheet import ACCENT, FAINT, INK, LINE, PAPER
from generator.web.gallery import signed
from scenes.arrays import Bytes
from trainer.control.curve import Control, ControlCurve
from trainer.generation.fonts import draw_line, fitted, width
from trainer.generation.plan import PlannedVideo, Row

Frames = Callable[[PlannedVideo], Bytes]  # a video's frames [T, H, W, 3]

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
    headings = ((title, 18, INK, ("DejaVuSerif", 24)), (facts, 54, FAINT, ("DejaVuSans", 12)))
    for words, top, ink, face in headings:
        draw_line(draw, (MARGIN_PX, top), fitted(draw, words, width_px - 2 * MARGIN_PX, *face), ink, *face)
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


def control_words(control: Control) -> str:
    """Return a control with its sign; of a curve, the first and the last."""
    if isinstance(control, ControlCurve):
        return " → ".join(signed(at, 2) for at in (control.knots[0][1], control.knots[-1][1]))
    return signed(control, 2)


def row_words(row: Row) -> str:
    """Return what tells a row from others besides its prompt."""
    return f"seed {row.seed}  ·  {row.mode}"


def _caption(draw: ImageDraw.ImageDraw, row: Row, top: int, width_px: int) -> None:
    right = width_px - MARGIN_PX
    draw.line((MARGIN_PX, top, right, top), LINE)
    small, italic = ("DejaVuSans", 11), ("DejaVuSerif-Italic", 13)
    words = row_words(row)
    words_px = width(draw, words, *small)
    prompt = fitted(draw, row.prompt, right - MARGIN_PX - words_px - 16, *italic)
    draw_line(draw, (MARGIN_PX, top + 7), prompt, INK, *italic)
    draw_line(draw, (right - words_px, top + 8), words, FAINT, *small)


def _labels(draw: ImageDraw.ImageDraw, video: PlannedVideo, left: int, top: int, room_px: int) -> None:
    swept = [(name, control) for name, control in video.controls if name in video.given]
    face, small = ("DejaVuSerif", 14), ("DejaVuSansMono", 11)
    if not swept:
        draw_line(draw, (left, top), "no control", FAINT, *face)
    for line, ((_, control), value) in enumerate(zip(swept, video.labels, strict=True)):
        written = control_words(control)
        draw_line(draw, (left, top + line * LABEL_PX), value, INK, *face)
        written_px = width(draw, written, *small)
        if width(draw, value, *face) + written_px + 8 <= room_px:
            draw_line(draw, (left + room_px - written_px, top + line * LABEL_PX + 3), written, ACCENT, *small)


def _scaled(frame_HW3: Bytes, cell: tuple[int, int]) -> Image.Image:
    return Image.fromarray(frame_HW3).resize(cell, Image.Resampling.LANCZOS)


def _even(length_px: int) -> int:
    return length_px + length_px % 2  # yuv420p halves both sides
