"""The contact sheet of a dataset: one PNG, a row per scene, clips in order of control, the middle frame of each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from generator.io.atomic import write_atomic
from generator.media.images import png_bytes
from generator.recipe.plan import ClipPlan, Plan, ScenePlan
from generator.versions.working.working_folder import WorkingFolder
from generator.web.gallery import in_order, signed
from scenes.axes import AXES
from scenes.errors import InputError

PAPER, LINE, INK, FAINT, ACCENT = (247, 245, 240), (220, 213, 200), (29, 27, 24), (122, 115, 103), (176, 100, 0)
MARGIN_PX, GAP_PX, GUTTER_PX = 40, 10, 44
TITLE_PX, META_PX, CAPTION_PX, LABEL_PX, FOOT_PX = 104, 24, 38, 20, 34
LEAST_CELL_PX, MOST_CELL_PX = 64, 512
MOST_SCENES = 24


@dataclass(frozen=True, kw_only=True)
class SheetReport:
    """What was written: where, its size in pixels, and how many of the dataset's scenes it shows."""

    path: Path
    width: int
    height: int
    scenes: int
    all_scenes: int


def contact_sheet(dataset: WorkingFolder, out: Path, *, scenes: int = MOST_SCENES, width_px: int = 1800) -> SheetReport:
    """Write a dataset's contact sheet as PNG, at most `width_px` wide; short scenes stand side by side.

    With more than `scenes` scenes, that many are shown, evenly spaced over the plan, so that every pyramid has its share.
    Raises InputError for a file that is no .png, no scene, or clips that would be under 64 px; DamagedError for a broken clip.
    """
    if out.suffix.lower() != ".png":
        raise InputError(f"{out} is no .png file; give a file name like {dataset.path / 'contact-sheet.png'}")
    if scenes < 1:
        raise InputError(f"{scenes} scenes make no contact sheet; give 1 or more")
    plan = dataset.plan
    chosen = _spread(plan.scenes, scenes)
    cell = _cell(plan, chosen, width_px)
    shelves = _shelves(chosen, cell, width_px - 2 * MARGIN_PX)
    labels_px = LABEL_PX * max(len(clip.axes) for clip in plan.clips)
    shelf_px = META_PX + CAPTION_PX + cell[1] + labels_px + FOOT_PX
    sheet = Image.new("RGB", (width_px, TITLE_PX + shelf_px * len(shelves)), PAPER)
    draw = ImageDraw.Draw(sheet)
    _title(draw, plan, len(chosen))
    for number, shelf in enumerate(shelves):
        left, top = MARGIN_PX, TITLE_PX + number * shelf_px
        for scene in shelf:
            _scene(sheet, draw, dataset, scene, (left, top), cell)
            left += _width(scene, cell) + GUTTER_PX
    write_atomic(out, png_bytes(np.asarray(sheet)))
    return SheetReport(path=out, width=sheet.width, height=sheet.height, scenes=len(chosen), all_scenes=len(plan.scenes))


def _spread(scenes: tuple[ScenePlan, ...], most: int) -> list[ScenePlan]:
    if len(scenes) <= most:
        return list(scenes)
    places = np.linspace(0, len(scenes) - 1, most).round().astype(int)
    return [scenes[int(place)] for place in places]


def _cell(plan: Plan, scenes: list[ScenePlan], width_px: int) -> tuple[int, int]:
    """Return the width and height of a clip on the sheet, in pixels."""
    columns = max(len(scene.clip_ids) for scene in scenes)
    cell_px = min(MOST_CELL_PX, (width_px - 2 * MARGIN_PX + GAP_PX) // max(columns, 5) - GAP_PX)
    if cell_px < LEAST_CELL_PX:
        needed = 2 * MARGIN_PX + max(columns, 5) * (LEAST_CELL_PX + GAP_PX)
        raise InputError(f"{columns} clips in a row do not fit in {width_px} pixels; give a width of {needed} or more")
    return cell_px, round(cell_px * plan.recipe.video.height / plan.recipe.video.width)


def _width(scene: ScenePlan, cell: tuple[int, int]) -> int:
    return len(scene.clip_ids) * (cell[0] + GAP_PX) - GAP_PX


def _shelves(scenes: list[ScenePlan], cell: tuple[int, int], room_px: int) -> list[list[ScenePlan]]:
    """Return the scenes in rows: in order, as many side by side as fit."""
    shelves: list[list[ScenePlan]] = []
    used_px = 0
    for scene in scenes:
        if shelves and used_px + GUTTER_PX + _width(scene, cell) <= room_px:
            shelves[-1].append(scene)
            used_px += GUTTER_PX + _width(scene, cell)
        else:
            shelves.append([scene])
            used_px = _width(scene, cell)
    return shelves


def _title(draw: ImageDraw.ImageDraw, plan: Plan, shown: int) -> None:
    some = f"{shown} of {len(plan.scenes)} scenes" if shown < len(plan.scenes) else f"{shown} scenes"
    video = plan.recipe.video
    draw.text((MARGIN_PX, 24), plan.name, INK, _font("DejaVuSerif", 30))
    facts = f"{len(plan.clips)} clips, {some}  ·  {video.width} × {video.height} at {video.fps} fps  ·  plan {plan.digest[:12]}"
    draw.text((MARGIN_PX, 66), facts, FAINT, _font("DejaVuSans", 13))


def _scene(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    dataset: WorkingFolder,
    scene: ScenePlan,
    corner: tuple[int, int],
    cell: tuple[int, int],
) -> None:
    (left, top), (wide_px, tall_px) = corner, cell
    clips = in_order(dataset.plan, scene)
    room_px = _width(scene, cell)
    kind = "still" if clips[0].frames == 1 else f"{clips[0].frames} frames"
    draw.line((left, top, left + room_px, top), LINE)
    draw.text((left, top + 7), f"{clips[0].family}  ·  layer {clips[0].layer}  ·  {kind}", FAINT, _font("DejaVuSans", 11))
    font = _font("DejaVuSerif-Italic", 12)
    for line, words in enumerate(_wrapped(draw, clips[0].caption, room_px, font)):
        draw.text((left, top + META_PX + 16 * line), words, INK, font)
    for column, clip in enumerate(clips):
        frames_THW3 = dataset.frames(clip.clip_id)
        picture = Image.fromarray(frames_THW3[len(frames_THW3) // 2]).resize(cell, Image.Resampling.LANCZOS)
        at = left + column * (wide_px + GAP_PX)
        sheet.paste(picture, (at, top + META_PX + CAPTION_PX))
        _labels(draw, clip, at, top + META_PX + CAPTION_PX + tall_px + 5, wide_px)


def _labels(draw: ImageDraw.ImageDraw, clip: ClipPlan, left: int, top: int, room_px: int) -> None:
    for line, axis in enumerate(clip.axes):
        value, control = AXES[axis].format(clip.values[axis]), signed(clip.controls[axis], 2)
        font, small = _font("DejaVuSerif", 14), _font("DejaVuSansMono", 11)
        draw.text((left, top + line * LABEL_PX), value, INK, font)
        if draw.textlength(value, font) + draw.textlength(control, small) + 8 <= room_px:
            draw.text((left + room_px - draw.textlength(control, small), top + line * LABEL_PX + 3), control, ACCENT, small)


def _wrapped(draw: ImageDraw.ImageDraw, text: str, room_px: int, font: ImageFont.FreeTypeFont, most: int = 2) -> list[str]:
    """Return a text as at most `most` lines that fit; the last ends with an ellipsis where the text does not fit."""
    lines: list[str] = []
    words = text.split()
    while words and len(lines) < most:
        count = len(words)
        while count > 1 and draw.textlength(" ".join(words[:count]), font) > room_px:
            count -= 1
        lines.append(" ".join(words[:count]))
        words = words[count:]
    if words:
        while " " in lines[-1] and draw.textlength(f"{lines[-1]}…", font) > room_px:
            lines[-1] = lines[-1].rpartition(" ")[0]
        lines[-1] += "…"
    return lines


def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    # matplotlib carries these faces, so sheets look the same on every machine
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"), size)
