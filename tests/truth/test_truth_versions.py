"""Truth is part of a version: made once per scene, added without rendering a clip, restored, collected, pushed, refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from truth.truth_support import TRUTH, made, plan_of

from generator import Dataset
from generator.recipe.estimate import estimate
from generator.recipe.load import parse_recipe
from generator.remotes.folder import FolderRemote
from generator.store.objects import Store
from generator.store.record_keys import clip_keys
from generator.truth.truth_names import truth_files
from generator.verify.truth_report import verify_truth
from generator.verify.verify_dataset import verify
from generator.versions.check import check
from generator.versions.commit_folder import commit_folder
from generator.versions.gc import gc
from generator.versions.history.history import History
from generator.versions.sync.pull import clone
from generator.versions.sync.push import push
from generator.versions.working.restore import restore
from generator.versions.working.status import status
from generator.versions.working.working_folder import WorkingFolder
from scenes.errors import InputError


def files_of(path: Path) -> set[str]:
    return {str(file.relative_to(path)) for file in (path / "truth").rglob("*") if file.is_file()}


def test_all_clips_of_a_scene_name_the_same_objects(truth_dataset: Path) -> None:
    dataset = Dataset.open(truth_dataset)
    by_scene: dict[str, list[dict[str, str]]] = {}
    for clip in dataset:
        by_scene.setdefault(clip["scene_id"], []).append(truth_files(clip["lossless"]))
    assert [len(clips) for clips in by_scene.values()] == [2, 2]
    for scene_id, (one, two) in by_scene.items():
        assert one == two and len(one) == 4 * 5 + 2 * 4 + 2
        for name, digest in one.items():
            assert (truth_dataset / "truth" / scene_id / name).samefile(dataset.history.store.path(digest))


def test_a_recipe_without_truth_has_the_plan_it_had_and_other_passes_the_same_clips() -> None:
    plain, all_passes, depth = plan_of(truth=""), plan_of(), plan_of(truth='[truth]\npasses = ["depth"]')
    assert '"truth"' not in plain.to_json()
    media = [[key for _, key in plan.media_keys()] for plan in (plain, all_passes, depth)]
    assert media[0] == media[1] == media[2]
    assert len({tuple(clip_keys(plan, "5.0.1").values()) for plan in (plain, all_passes, depth)}) == 3


def test_a_plan_counts_what_truth_takes(truth_dataset: Path) -> None:
    """Within twice the bytes that are there, and CPU time that grows with the passes."""
    there = sum(path.stat().st_size for path in (truth_dataset / "truth").rglob("*") if path.is_file())
    none, some, full = (estimate(plan_of(truth=text).recipe) for text in ("", '[truth]\npasses = ["depth"]\n', TRUTH))
    assert 0.5 < (full.size_bytes - none.size_bytes) / there < 2.0
    assert none.cpu_s < some.cpu_s < full.cpu_s and none.size_bytes < some.size_bytes < full.size_bytes


def test_truth_comes_and_goes_without_a_clip_being_rendered(truth_dataset: Path, tmp_path: Path) -> None:
    path = tmp_path / "d"
    shutil.copytree(truth_dataset, path)
    first = {record.sha256_bytes: record.cpu_s for record in records(path, TRUTH)}
    versions = []
    for truth in ("", "[truth]\npasses = []", '[truth]\npasses = ["depth", "flow"]'):
        versions.append(str(made(path, truth=truth).version))
        assert {record.sha256_bytes: record.cpu_s for record in records(path, truth)} == first  # none was made anew
        assert (path / "truth").exists() == bool(truth)
    assert {name.split("/")[2] for name in files_of(path)} == {"depth", "flow_forward", "flow_backward", "scene.json"}
    restore(History(path), versions[1])
    assert {name.split("/")[2] for name in files_of(path)} == {"scene.json"}
    assert status(History(path)).clean and check(History(path)).clean
    restore(History(path), versions[0])
    assert not (path / "truth").exists()

    with pytest.raises(InputError, match=r"has no ground truth; add \[truth\]"):
        Dataset.open(path, versions[0])[0].flow()
    clip = Dataset.open(path, versions[1])[0]
    assert len(clip.objects()) and len(clip.cameras()) == 5
    with pytest.raises(InputError, match="has no 'depth'; its recipe keeps boxes and cameras alone: add 'depth'"):
        clip.depth()
    with pytest.raises(InputError, match="depth along 'z'; give 'axis'"):
        Dataset.open(truth_dataset)[0].depth("z")  # type: ignore[arg-type]


def records(path: Path, truth: str) -> list:  # type: ignore[type-arg]
    store = Store(path / ".stopdown")
    found = [store.finished(key) for key in clip_keys(plan_of(truth=truth), "5.0.1").values()]
    assert all(found)
    return found


def test_a_clone_has_it_and_collecting_garbage_leaves_it(truth_dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "remote").mkdir()
    remote = FolderRemote(tmp_path / "remote")
    push(History(truth_dataset), remote)
    clone(remote, tmp_path / "copy")
    copy = History(tmp_path / "copy")
    gc(copy, grace_s=0)
    assert check(copy).clean and status(copy).clean
    assert files_of(tmp_path / "copy") == files_of(truth_dataset)
    assert (Dataset.open(copy.path)[0].depth() == Dataset.open(truth_dataset)[0].depth()).all()


def test_removing_one_clip_keeps_the_truth_and_removing_all_of_a_scene_drops_it(truth_dataset: Path, tmp_path: Path) -> None:
    path = tmp_path / "d"
    shutil.copytree(truth_dataset, path)
    history, clips = History(path), sorted((path / "clips").glob("flyby-*.mp4"))
    clips[0].unlink()
    commit_folder(history, "one less")
    assert any(name.startswith("truth/flyby") for name in files_of(path)) and status(history).clean
    clips[1].unlink()
    commit_folder(history, "none left")
    assert not any(name.startswith("truth/flyby") for name in files_of(path)) and status(history).clean


@pytest.mark.parametrize(
    ("truth", "words"),
    [
        ('passes = ["dept"]', r"'truth.passes\[0\]' = \"dept\""),
        ('passes = ["depth", "depth"]', "'depth' stands twice"),
        ("pass = 1", "unknown key"),
    ],
)
def test_a_bad_section_is_refused(truth: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        plan_of(truth=f"[truth]\n{truth}")


def test_truth_of_another_version_is_found(truth_dataset: Path, tmp_path: Path) -> None:
    path = tmp_path / "d"
    shutil.copytree(truth_dataset, path)
    scene = next((path / "truth").iterdir())
    file, other = scene / "depth" / "0000.exr", next(place for place in (path / "truth").iterdir() if place != scene)
    file.unlink()
    file.write_bytes((other / "depth" / "0000.exr").read_bytes())
    (scene / "stray.png").write_bytes(b"")
    found = [problem.message for problem in verify(WorkingFolder.open(path), workers=1).problems]
    assert any("depth/0000.exr does not match its sha256; is it of another version?" in words for words in found)
    assert any("stray.png belongs to no truth of this version" in words for words in found)
    assert [d.path.partition(scene.name)[2] for d in status(History(path)).differences] == ["/depth/0000.exr", "/stray.png"]


def test_a_dataset_whose_truth_is_gone_is_not_verified(truth_dataset: Path) -> None:
    checks, problems = verify_truth(WorkingFolder.open(truth_dataset), {})
    assert checks == () and problems == []  # no record, no claim: files of clips are another check's
    assert parse_recipe('name = "x"\n[truth]\n[[pyramid]]\naxes = "shutter"\nfamily = "flyby"', source="x").truth is not None
