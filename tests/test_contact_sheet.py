"""The contact sheet: the right pictures in the right places."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from generator.versions.working.working_folder import WorkingFolder
from generator.web.contact_sheet import CAPTION_PX, MARGIN_PX, META_PX, TITLE_PX, contact_sheet
from generator.web.gallery import in_order
from scenes.errors import InputError


def test_contact_sheet_shows_middle_frames(demo_dataset: WorkingFolder, tmp_path: Path) -> None:
    report = contact_sheet(demo_dataset, tmp_path / "sheet.png", width_px=1200)
    assert report.scenes == report.all_scenes == len(demo_dataset.plan.scenes)
    with Image.open(report.path) as picture:
        assert picture.size == (report.width, report.height)
        assert picture.width == 1200
        sheet_HW3 = np.asarray(picture.convert("RGB")).astype(float)
    clip = in_order(demo_dataset.plan, demo_dataset.plan.scenes[0])[0]
    frames_THW3 = demo_dataset.frames(clip.clip_id)
    top = TITLE_PX + META_PX + CAPTION_PX
    cell = (1200 - 2 * MARGIN_PX + 10) // 5 - 10
    shown_HW3 = sheet_HW3[top : top + cell, MARGIN_PX : MARGIN_PX + cell]
    expected_HW3 = np.asarray(
        Image.fromarray(frames_THW3[len(frames_THW3) // 2]).resize((cell, cell), Image.Resampling.LANCZOS)
    )
    np.testing.assert_array_equal(shown_HW3, expected_HW3)


def test_contact_sheet_samples_scenes_and_refuses_nonsense(demo_dataset: WorkingFolder, tmp_path: Path) -> None:
    whole = contact_sheet(demo_dataset, tmp_path / "all.png")
    some = contact_sheet(demo_dataset, tmp_path / "some.png", scenes=2)
    assert (some.scenes, some.all_scenes) == (2, whole.all_scenes)
    assert some.height < whole.height
    with pytest.raises(InputError, match="0 scenes"):
        contact_sheet(demo_dataset, tmp_path / "none.png", scenes=0)
    with pytest.raises(InputError, match="do not fit in 200 pixels"):
        contact_sheet(demo_dataset, tmp_path / "narrow.png", width_px=200)
    with pytest.raises(InputError, match=r"no \.png file"):
        contact_sheet(demo_dataset, tmp_path / "sheet.jpg")
