"""What training, previews and evaluation are bound to refuse is refused before a run renders anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from generator.building.plan_check import check_trainable
from generator.recipe.backbone_grid import GRIDS, backbone_grid
from generator.recipe.blend_file import file_sha256, write_annotation
from generator.recipe.load import parse_recipe
from scenes.errors import InputError
from scenes.families.blend_annotation import ANNOTATION_FORMAT, AnnotatedObject, Annotation, RenderCost
from trainer.backbones.load import load_backbone
from trainer.backbones.locate import KNOWN, MODEL
from trainer.backbones.weightless import weightless_pipeline
from trainer.commands.run import command as run_command
from trainer.pipelines.controlled_wan import grid_of
from trainer.runs.before_rendering import check_before_rendering
from trainer.runs.run_recipe import load_run_recipe

RECIPE = """
name = "early"
[video]
width = 64
height = 64
[[pyramid]]
axes = ["temperature"]
family = ["tabletop"]
layers = [3]
scenes_per_layer = 12
frames = [1, 5]
[train.backbone]
name = "tiny"
[evaluate]
fep = false
"""
FIVE_B = 'train.backbone.name="Wan-AI/Wan2.2-TI2V-5B-Diffusers"'
FEW = "pyramid=[{axes=['temperature'], family='tabletop', layers=[3], scenes_per_layer=1, frames=[5]}]"


@pytest.mark.parametrize("name", [name for name in KNOWN if name != "tiny-random"])
def test_grids_are_those_of_the_backbones_themselves(name: str) -> None:
    assert backbone_grid(name) == GRIDS[name] == grid_of(weightless_pipeline(name))


def test_a_folder_is_read_and_what_is_none_is_left_to_those_who_load_it(tiny_folder: Path, tmp_path: Path) -> None:
    assert set(GRIDS) == set(KNOWN)
    assert backbone_grid(str(MODEL)) == GRIDS["tiny"]
    assert backbone_grid(str(tiny_folder)) == backbone_grid("tiny-random:0") == grid_of(load_backbone(str(tiny_folder)))
    assert backbone_grid("somebody/Wan-of-their-own") is None and backbone_grid(str(tmp_path)) is None
    for part in ("transformer", "vae"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text('{"patch_size": [1, "two", 2]}')
    assert backbone_grid(str(tmp_path)) is None


def run_recipe(folder: Path, *overrides: str) -> None:
    (folder / "recipe.toml").write_text(RECIPE)
    check_before_rendering(load_run_recipe(folder / "recipe.toml", overrides), folder / "datasets" / "early")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["video.width=72"], "size 72x64 .* multiple of 16.* the nearest is 64x64 .this recipe trains on backbone tiny"),
        (
            ["video.height=48", FIVE_B],
            "size 64x48 .* multiple of 32.* 64x64 .this recipe trains on backbone Wan-AI/Wan2.2-TI2V-5B",
        ),
        (["train.previews.every=5", "train.previews.width=40"], "train.previews: size 40x512 .* nearest is 32x512"),
        (["train.previews.every=5", "train.previews.frames=7", FIVE_B], "train.previews: 7 frames .* 4n . 1"),
        (["evaluate.width=72"], "evaluate: size 72x16 "),
        (["evaluate.frames=7", FIVE_B], "evaluate: 7 frames "),
        (["train.train_split=test", "train.validation_split=train", FEW], "split 'test' gets no clip that varies temperature"),
        ([FEW, "train.previews.every=5"], "train.previews has no prompts, and the split 'validation' gets no clip"),
        ([FEW], "evaluate has no prompts, and no held-out clip that varies temperature .* of 1 scenes"),
    ],
)
def test_a_run_refuses_before_it_renders(tmp_path: Path, overrides: list[str], words: str) -> None:
    with pytest.raises(InputError, match=words) as refused:
        run_recipe(tmp_path, *overrides)
    assert "\n" not in str(refused.value) and not (tmp_path / "datasets").exists()


@pytest.mark.parametrize(
    "overrides", [[], ["video.height=48"], ["evaluate.frames=7"], [FEW, "evaluate.prompts=['a red cube']"]]
)
def test_a_run_that_can_end_is_not_refused(tmp_path: Path, overrides: list[str]) -> None:
    run_recipe(tmp_path, *overrides)


def test_plan_refuses_what_the_named_backbone_cannot_take_and_not_what_trains_elsewhere() -> None:
    def check(*overrides: str) -> None:
        check_trainable(parse_recipe(RECIPE, source="early.toml", overrides=overrides))

    check()
    check('train.backbone.name="somebody/unknown"', "video.width=72")
    check("video.width=72", 'train.dataset="datasets/another"')
    for wrong in (["video.width=72"], ["video.width=72", 'train.dataset="data/early"'], ["video.height=48", FIVE_B]):
        with pytest.raises(InputError, match="does not fit this backbone"):
            check(*wrong)
    with pytest.raises(InputError, match=r"multiple of 8, .*most backbones take multiples of 16"):
        check('train.backbone.name="somebody/unknown"', "video.width=60")
    with pytest.raises(InputError, match=r"Wan2\.1-T2V-1\.3B"):
        check("train.backbone={}", "video.width=72")


def custom_blend(folder: Path) -> None:
    """Write a recipe over the aperture of a marked file, of which no label can be verified."""
    file = folder / "own.blend"
    file.write_bytes(b"BLENDER-v500 as far as marks are concerned")
    still = AnnotatedObject(name="Card", size_m=(0.4, 0.4, 0.4), path_m=((0.0, 0.0, 0.0),) * 14)
    annotation = Annotation(
        format=ANNOTATION_FORMAT, sha256=file_sha256(file),
        file=file.name, scene="Scene", camera="Camera", caption="A card", fps=16, first_frame=1,
        last_frame=12, location_m=(0.0, -5.0, 0.0), target_m=(0.0, -4.0, 0.0), focal_length_mm=36.0, sensor_fit="AUTO",
        sensor_width_mm=36.0, sensor_height_mm=24.0, focus_distance_m=5.0, subject=None, patch=still,
    )  # fmt: skip
    write_annotation(file, annotation, RenderCost(open_s=0.1, frame_s=0.1, pixel_s=0.1, sample_s=0.1), [])
    told = RECIPE.replace('"temperature"', '"aperture"').replace('"tabletop"', '"blend"')
    (folder / "own.toml").write_text(
        f'{told}[scene]\nfamily = "blend"\nfile = "own.blend"\n[render]\nfidelity = "pbr"\nsamples = 4\n'
    )


def test_a_dry_run_says_that_no_label_can_be_proven(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    custom_blend(tmp_path)
    with pytest.raises(InputError, match=r"aperture: 72 of 72 clips cannot be verified: .* verify\.accept_unproven = \["):
        run_command(tmp_path / "own.toml", out=tmp_path / "runs", dataset=tmp_path / "data", dry_run=True)
    assert capsys.readouterr().out == "" and not (tmp_path / "runs").exists()
    accepted = ['verify.accept_unproven=["aperture"]']
    run_command(tmp_path / "own.toml", out=tmp_path / "runs", dataset=tmp_path / "data", dry_run=True, overrides=accepted)
    assert "72 clips" in capsys.readouterr().out
