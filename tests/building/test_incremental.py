"""A committed dataset takes a changed recipe: only what changed is rendered, and every version stays as it was."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from generator import Dataset
from generator.building.local import BuildReport, build
from generator.console.progress import PlainProgress
from generator.recipe.load import parse_recipe
from generator.recipe.plan import Plan, make_plan
from generator.versions.check import check
from generator.versions.history.history import History
from generator.versions.working.restore import restore
from generator.versions.working.status import status
from scenes.errors import InputError

RECIPE = """
name = "grows"
seed = 3
[video]
width = 64
height = 64
[[pyramid]]
axes = ["temperature"]
family = "tabletop"
layers = [3]
scenes_per_layer = 1
frames = [5]
"""


def plan_of(*overrides: str) -> Plan:
    return make_plan(parse_recipe(RECIPE, source="grows.toml", overrides=overrides))


def made(path: Path, *overrides: str, message: str | None = "built") -> BuildReport:
    progress = PlainProgress(io.StringIO())
    return build(plan_of(*overrides), path, workers=1, threads=1, progress=progress, message=message)


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[BuildReport]]:
    """A dataset built with layer 3, then with layers 3 and 2, then with layer 3 again."""
    path = tmp_path_factory.mktemp("incremental") / "d"
    return path, [made(path), made(path, "pyramid.0.layers=[3,2]"), made(path)]


def test_only_what_the_recipe_adds_is_rendered(grown: tuple[Path, list[BuildReport]]) -> None:
    _, reports = grown
    assert [(report.rendered, report.reused) for report in reports] == [(3, 0), (2, 3), (0, 3)]


def test_every_version_is_still_there_and_every_byte_is_right(grown: tuple[Path, list[BuildReport]]) -> None:
    path, reports = grown
    history = History.open(path)
    assert [len(Dataset.open(path, report.version or "")) for report in reports] == [3, 5, 3]
    assert status(history).clean
    assert check(history).clean
    assert sorted(view.stem for view in (path / "clips").glob("*.mp4")) == sorted(plan_of().clip_by_id)


def test_the_same_recipe_has_the_same_content_in_another_folder(grown: tuple[Path, list[BuildReport]], tmp_path: Path) -> None:
    path, reports = grown
    other = made(tmp_path / "elsewhere")
    contents = [History.open(folder).version(ref or "").content for folder, ref in
                ((path, reports[0].version), (path, reports[2].version), (tmp_path / "elsewhere", other.version))]  # fmt: skip
    assert len(set(contents)) == 1


def test_a_restored_version_is_the_build_byte_for_byte(tmp_path: Path) -> None:
    path = tmp_path / "d"
    first = made(path)
    files = {file: file.read_bytes() for file in path.rglob("*") if file.is_file() and ".stopdown" not in file.parts}
    made(path, "pyramid.0.layers=[2]")
    restore(History.open(path), first.version or "")
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file() and ".stopdown" not in file.parts} == files


def test_uncommitted_work_is_never_built_over(tmp_path: Path) -> None:
    path = tmp_path / "d"
    made(path)
    caption = next((path / "clips").glob("*.txt"))
    caption.write_text("my own words\n")
    with pytest.raises(InputError, match="what no version holds"):
        made(path, "pyramid.0.layers=[2]")
    assert caption.read_text() == "my own words\n"


def test_an_uncommitted_dataset_or_one_of_another_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "d"
    assert made(path, message=None).version is None
    with pytest.raises(InputError, match="of another recipe"):
        made(path, "pyramid.0.layers=[2]")
    made(path)
    with pytest.raises(InputError, match="of another recipe"):
        made(path, "name=other")


def test_scenes_that_an_earlier_stopdown_laid_out_for_an_axis_of_their_own_are_never_mixed_with_others(tmp_path: Path) -> None:
    path = tmp_path / "d"
    law = ["axes.temperature.neutral=5000", "axes.temperature.ratio=0.6"]
    layout = [override.replace(".temperature.", ".temperature.layout.") for override in law]
    kept = plan_of(*law, *layout)
    earlier = kept.model_copy(update={"format": 1, "recipe": plan_of(*law).recipe})
    build(earlier, path, workers=1, threads=1, progress=PlainProgress(io.StringIO()), message="by an earlier Stopdown")
    assert check(History(path)).clean
    assert [clip["caption"] for clip in Dataset.open(path)] == [clip.caption for clip in kept.clips]
    assert "Not committed" not in (path / "README.md").read_text()
    with pytest.raises(InputError, match=r"earlier Stopdown laid out.*layout = \{ neutral = 5000, ratio = 0.6 \}"):
        made(path, *law)
    again = made(path, *law, *layout)
    assert (again.rendered, again.reused) == (0, 3)
