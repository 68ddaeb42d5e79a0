"""Curation: `verify`, `gallery` and `build` go by the removed clips and edited captions of a version. Real renders."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from generator.building.local import BuildReport, blender_version, build
from generator.console.progress import JsonProgress
from generator.farm.finish import finish_target
from generator.farm.shard_build import ShardOptions, build_shard
from generator.farm.shards import Shard
from generator.farm.target import open_target
from generator.recipe.load import parse_recipe
from generator.recipe.plan import Plan, make_plan
from generator.remotes.base import RemoteOptions, open_remote
from generator.verify.verify_dataset import verify
from generator.versions.check import check
from generator.versions.commit_folder import commit_folder
from generator.versions.history.history import History
from generator.versions.sync.pull import clone
from generator.versions.working.restore import restore
from generator.versions.working.status import status
from generator.versions.working.working_folder import WorkingFolder
from generator.web.contact_sheet import contact_sheet
from generator.web.gallery import gallery
from scenes.errors import InputError

RECIPE = """
name = "curated"
seed = 3
[video]
width = 64
height = 64
[render]
samples = 4
[[pyramid]]
axes = ["temperature"]
family = ["tabletop"]
layers = [3, 1]
scenes_per_layer = 1
frames = [1]
"""


def plan_of(*overrides: str) -> Plan:
    return make_plan(parse_recipe(RECIPE, source="curated.toml", overrides=overrides))


def build_there(path: Path, plan: Plan, message: str | None = "built") -> BuildReport:
    return build(plan, path, workers=1, threads=1, progress=JsonProgress(io.StringIO()), message=message)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("curation") / "curated"
    assert build_there(path, plan_of()).complete
    return path


@pytest.fixture
def dataset(built: Path, tmp_path: Path) -> Path:
    """Return a copy with its history, views linked to objects as a build links them."""
    clone(open_remote(str(built), RemoteOptions()), tmp_path / "curated")
    return tmp_path / "curated"


def curate(path: Path) -> tuple[str, str]:
    """Edit one caption, delete another clip, commit; return their ids."""
    edited, removed, *_ = sorted(clip.clip_id for clip in plan_of().clips)
    (path / "clips" / f"{edited}.txt").write_text("my words\n")
    (path / "clips" / f"{removed}.mp4").unlink()
    commit_folder(History(path), "curated")
    return edited, removed


def captions(path: Path) -> dict[str, str]:
    return {file.stem: file.read_text().strip() for file in (path / "clips").glob("*.txt")}


def test_verify_and_gallery_go_by_what_was_committed(dataset: Path, tmp_path: Path) -> None:
    edited, removed = curate(dataset)
    opened = WorkingFolder.open(dataset)
    report = verify(opened, workers=1)
    assert report.problems == () and report.clips == len(plan_of().clips) - 1 and report.plan_digest == plan_of().digest
    page = tmp_path / "page.html"
    assert gallery(opened, page).clips == len(plan_of().clips) - 1
    assert "my words" in page.read_text() and removed not in page.read_text() and edited in page.read_text()
    contact_sheet(opened, tmp_path / "sheet.png")
    (dataset / "clips" / f"{edited}.txt").write_text("other words\n")  # not committed
    assert [(problem.kind, problem.where) for problem in verify(WorkingFolder.open(dataset), workers=1).problems] == [
        ("caption", edited)
    ]


def test_a_build_keeps_a_curation_and_says_so(dataset: Path) -> None:
    edited, removed = curate(dataset)
    for overrides in ((), ("verify.median_error.temperature=30",), ("pyramid.0.scenes_per_layer=2",)):
        plan = plan_of(*overrides)
        report = build_there(dataset, plan)
        assert report.complete and "1 clip removed and 1 caption edited" in report.curation
        assert report.clips == len(plan.clips) - 1
        history = History(dataset)
        assert history.version().plans == (plan.digest,) and history.version().summary.clips == len(plan.clips) - 1
        assert captions(dataset)[edited] == "my words" and removed not in captions(dataset)
        assert status(history, thorough=True).clean and check(history).clean
        assert verify(WorkingFolder.open(dataset), workers=1).problems == ()
        assert build_there(dataset, plan).version == report.version  # nothing new


def test_a_version_as_built_can_be_restored_and_built_on(dataset: Path) -> None:
    edited, removed = curate(dataset)
    restore(History(dataset), "latest~1")
    report = build_there(dataset, plan_of())
    assert report.curation == "" and captions(dataset)[edited] != "my words" and removed in captions(dataset)
    assert verify(WorkingFolder.open(dataset), workers=1).problems == ()


def test_edits_that_are_not_committed_are_not_built_over(dataset: Path) -> None:
    edited = min(clip.clip_id for clip in plan_of().clips)
    (dataset / "clips" / f"{edited}.txt").write_text("my words\n")
    with pytest.raises(InputError, match=rf"has edits that no version holds \(clips/{edited}.txt\).*stopdown commit"):
        build_there(dataset, plan_of())
    assert captions(dataset)[edited] == "my words"


def test_a_clip_that_went_missing_is_shown_again(dataset: Path) -> None:
    lost = min(clip.clip_id for clip in plan_of().clips)
    (dataset / "clips" / f"{lost}.mp4").unlink()
    assert build_there(dataset, plan_of()).curation == ""
    assert status(History(dataset), thorough=True).clean


def test_the_end_of_a_farm_refuses_to_undo_a_curation(dataset: Path, tmp_path: Path) -> None:
    target = open_target(str(dataset), plan_of(), blender=blender_version())
    options = ShardOptions(scratch=tmp_path / "scratch")
    assert build_shard(target, Shard(1, 1), options=options, progress=JsonProgress(io.StringIO())).rendered == 0
    assert finish_target(target, message="again").version == History(dataset).refs.head()
    curate(dataset)
    head = History(dataset).refs.head()
    with pytest.raises(InputError, match="was curated"):
        finish_target(target, message="again")
    assert History(dataset).refs.head() == head and status(History(dataset), thorough=True).clean
