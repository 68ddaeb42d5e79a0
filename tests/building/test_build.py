"""Building: the same frames whatever the number of processes, failures that stay small, and clear refusals. Real renders."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny

from generator.building.local import BuildReport, build, fitting_blender
from generator.building.scene_jobs import scene_jobs, spread
from generator.console.progress import JsonProgress, LiveProgress, PlainProgress, make_progress
from generator.errors import RenderError
from generator.media.video import decode, frames_digest
from generator.recipe.plan import Plan
from generator.store.objects import Store
from generator.store.record_keys import clip_key
from generator.versions.working.working_folder import WorkingFolder
from scenes.errors import InputError


def run(plan: Plan, path: Path, *, workers: int = 2, threads: int = 1, **options: float) -> tuple[BuildReport, list[dict]]:
    """Build, and return the report and the events."""
    stream = io.StringIO()
    report = build(plan, path, workers=workers, threads=threads, progress=JsonProgress(stream), **options)
    return report, [json.loads(line) for line in stream.getvalue().splitlines()]


def digests(path: Path) -> dict[str, str]:
    table = pq.read_table(path / "labels.parquet")
    return dict(zip(table["clip_id"].to_pylist(), table["sha256_frames"].to_pylist(), strict=True))


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a dataset built with two processes, keeping lossless frames."""
    path = tmp_path_factory.mktemp("reference") / "dataset"
    report, _ = run(tiny.plan(keep_frames=("png", "exr")), path)
    assert report.complete and report.rendered == report.clips == 15
    return path


def test_what_is_built_is_what_is_recorded(reference: Path) -> None:
    dataset = WorkingFolder.open(reference)
    assert len(set(digests(reference).values())) == 15
    for row in dataset.labels.to_pylist():
        data = (reference / "clips" / f"{row['clip_id']}.mp4").read_bytes()
        assert len(data) == row["size_bytes"]
        assert dataset.store.read(row["sha256_bytes"]) == data
        assert frames_digest(decode(data)) == row["sha256_frames"]
        assert dataset.frames(row["clip_id"]).shape == (row["frames"], 64, 64, 3)


def test_lossless_frames_are_kept_and_agree_with_the_clip(reference: Path) -> None:
    imageio, openexr = pytest.importorskip("imageio.v3"), pytest.importorskip("OpenEXR")
    for clip in WorkingFolder.open(reference).plan.clips:
        folder = reference / "frames" / clip.clip_id
        names = {f"{index:04d}.{kind}" for index in range(clip.frames) for kind in ("png", "exr")}
        assert {file.name for file in folder.iterdir()} == names
        png = imageio.imread(folder / "0000.png").astype(float)
        exr = openexr.File(str(folder / "0000.exr")).channels()["RGB"].pixels.astype(float)
        low, high = exr * 12.92, 1.055 * np.maximum(exr, 1e-9) ** (1 / 2.4) - 0.055
        assert np.abs(255 * np.clip(np.where(exr <= 0.0031308, low, high), 0, 1) - png).max() <= 0.75  # half's rounding
        clip_0 = decode(reference / "clips" / f"{clip.clip_id}.mp4")[0].astype(float)
        assert np.abs(clip_0 - png).mean() < 4


def test_neither_processes_nor_threads_change_a_frame(reference: Path, tmp_path: Path) -> None:
    report, _ = run(tiny.plan(), tmp_path / "one", workers=1, threads=2)
    assert report.complete
    assert digests(tmp_path / "one") == digests(reference)


def test_a_finished_dataset_renders_nothing(reference: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in reference.rglob("*") if file.is_file() and file.name != "lock"}
    report, events = run(tiny.plan(keep_frames=("png", "exr")), reference)
    assert (report.rendered, report.reused, events) == (0, 15, [])
    assert {file: file.stat().st_mtime_ns for file in before} == before


def test_a_lost_object_is_rendered_again_and_nothing_else(tmp_path: Path) -> None:
    run(tiny.plan(), tmp_path / "d")
    expected = digests(tmp_path / "d")
    store = WorkingFolder.open(tmp_path / "d").store
    row = pq.read_table(tmp_path / "d" / "labels.parquet").slice(4, 1).to_pylist()[0]
    store.path(row["sha256_bytes"]).unlink()
    (tmp_path / "d" / "clips" / f"{row['clip_id']}.mp4").unlink()
    report, events = run(tiny.plan(), tmp_path / "d")
    assert [event["clip_id"] for event in events if event["event"] == "done"] == [row["clip_id"]]
    assert (report.rendered, digests(tmp_path / "d")) == (1, expected)


def test_processes_are_recycled(reference: Path, tmp_path: Path) -> None:
    report, events = run(tiny.plan(), tmp_path / "d", workers=1, recycle_clips=3)
    starts = [event for event in events if event.get("state") == "loading Blender"]
    assert report.complete and len(starts) >= 5  # every scene has three clips
    assert digests(tmp_path / "d") == digests(reference)


def test_a_poisonous_scene_is_reported_and_the_rest_stays(reference: Path, tmp_path: Path) -> None:
    report, events = run(tiny.plan(poison=1), tmp_path / "d")
    poisoned = {"tiny-1-0", "tiny-1-1", "tiny-1-2"}
    assert set(report.failed) == poisoned and not report.complete
    assert all("no-such-kind" in message and "\n" not in message for message in report.failed.values())
    assert {event["clip_id"] for event in events if event["event"] == "failed"} == poisoned
    tries = Counter(event["state"].split()[-1] for event in events if event.get("state", "").startswith("rendering"))
    assert all(tries[clip] == 2 for clip in poisoned)  # tried once more, no oftener
    assert (report.rendered, not (tmp_path / "d" / "labels.parquet").exists()) == (12, True)
    plan, store = tiny.plan(poison=1), Store(tmp_path / "d" / ".stopdown")
    expected = digests(reference)
    for clip in plan.clips:
        record = store.finished(clip_key(plan, clip, "5.0.1"))
        assert (record is None) == (clip.clip_id in poisoned)
        assert record is None or record.sha256_frames == expected[clip.clip_id]


def test_clips_of_a_scene_cut_in_two_are_each_tried_twice(tmp_path: Path) -> None:
    whole = tiny.plan(poison=0)
    plan = whole.model_copy(update={"scenes": whole.scenes[:2], "clips": whole.clips[:6]})
    report, events = run(plan, tmp_path / "d", workers=3)
    tries = Counter(event["state"].split()[-1] for event in events if event.get("state", "").startswith("rendering"))
    assert set(report.failed) == {"tiny-0-0", "tiny-0-1", "tiny-0-2"} and report.rendered == 3
    assert tries == {clip.clip_id: 2 if clip.clip_id in report.failed else 1 for clip in plan.clips}


def test_a_process_that_never_speaks_ends_the_build(tmp_path: Path) -> None:
    with pytest.raises(RenderError, match="Blender does not come up"):
        run(tiny.plan(), tmp_path / "d", silence_s=1e-3)
    assert not list((tmp_path / "d" / ".stopdown").glob("records/*/*"))


def test_scenes_go_longest_first_and_spread_over_idle_processes() -> None:
    plan = tiny.plan()
    keys = {clip.clip_id: clip_key(plan, clip, "5.0.1") for clip in plan.clips}
    jobs = scene_jobs(plan, plan.clips, keys, "5.0.1")
    assert [job.spec.shot.frames for job in jobs] == [5, 5, 5, 1, 1]
    wide = spread(jobs, 32)
    assert sorted(clip.clip_id for job in wide for clip in job.clips) == sorted(keys)
    tabletop = [job for job in wide if job.scene_id == "tiny-1"]
    assert len(wide) == 13 and [len(job.clips) for job in tabletop] == [3]  # one render serves its three temperatures
    assert spread(jobs, 3) == jobs


def test_the_key_names_frames_and_blender_but_no_words() -> None:
    plan = tiny.plan()
    clip = plan.clips[0]
    other = clip.model_copy(update={"caption": "something else"})
    assert clip_key(plan, clip, "5.0.1") == clip_key(plan, other, "5.0.1")
    keys = {clip_key(plan, one, blender) for one in plan.clips for blender in ("5.0.1", "5.0.2")}
    assert len(keys) == 30


@pytest.mark.parametrize(
    ("python", "installed", "words"),
    [
        ((3, 12), "5.0.1", r"no Blender for Python 3\.12.*3\.11 \(bpy 5\.0\) and 3\.13 \(bpy 5\.2\)"),
        ((3, 11), None, r'not installed; run `pip install "stopdown\[render\]"`'),
        ((3, 11), "5.2.0", r"bpy 5\.2\.0 is installed.*bpy 5\.0\.x"),
        ((3, 13), "5.0.1", r"bpy 5\.0\.1 is installed.*bpy 5\.2\.x"),
        ((3, 11), "5.01.1", r"bpy 5\.01\.1"),
    ],
)
def test_a_blender_that_does_not_fit_is_refused(python: tuple[int, int], installed: str | None, words: str) -> None:
    with pytest.raises(InputError, match=words):
        fitting_blender(python, installed)


@pytest.mark.parametrize(("python", "installed"), [((3, 11), "5.0.1"), ((3, 13), "5.2.3")])
def test_a_blender_that_fits_is_taken(python: tuple[int, int], installed: str) -> None:
    assert fitting_blender(python, installed) == installed


@pytest.mark.parametrize(("workers", "threads"), [(0, 1), (-1, 1), (1, 0)])
def test_no_workers_is_refused_before_anything_is_written(tmp_path: Path, workers: int, threads: int) -> None:
    with pytest.raises(InputError, match="at least one"):
        run(tiny.plan(), tmp_path / "d", workers=workers, threads=threads)
    assert not (tmp_path / "d").exists()


def tell(progress: PlainProgress | JsonProgress | LiveProgress) -> None:
    """Tell a progress the story of a build of 40 clips, 10 of which were there."""
    progress.start(40, 10)
    progress.worker(0, "rendering a-1")
    for number in range(30):
        progress.done(f"a-{number}")
    progress.note("clip a-1: trying it once more")
    progress.failed("a-1", "Blender failed")
    progress.close()


def test_plain_progress_is_few_lines() -> None:
    stream = io.StringIO()
    progress = make_progress(stream)
    assert isinstance(progress, PlainProgress)
    tell(progress)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "40 clips, 10 finished before"
    assert [line.split()[0] for line in lines[1:-2]] == [f"{n}/40" for n in range(12, 41, 2)]
    assert lines[-2:] == ["clip a-1: trying it once more", "clip a-1 failed: Blender failed"]


def test_json_progress_is_one_object_a_line() -> None:
    stream = io.StringIO()
    progress = make_progress(stream, json_lines=True)
    assert isinstance(progress, JsonProgress)
    tell(progress)
    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert Counter(event["event"] for event in events) == {"start": 1, "worker": 1, "done": 30, "note": 1, "failed": 1}
    assert [event["finished"] for event in events if event["event"] == "done"] == list(range(11, 41))
    assert [event["eta_s"] for event in events if event["event"] == "done"][-1] == 0.0


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_live_progress_shows_the_bar_and_the_failures() -> None:
    stream = Terminal()
    progress = make_progress(stream)
    assert isinstance(progress, LiveProgress)
    tell(progress)
    text = stream.getvalue()
    assert "40/40" in text and "clips/s" in text
    assert "clip a-1 failed: Blender failed" in text


def test_threads_of_numerical_libraries_change_no_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for count in ("1", "2"):
        monkeypatch.setenv("OMP_NUM_THREADS", count)
        monkeypatch.setenv("OPENBLAS_NUM_THREADS", count)
        path = tmp_path / count
        assert build(tiny.plan(), path, workers=1, threads=1, progress=make_progress(io.StringIO(), json_lines=True)).complete
        rows = WorkingFolder.open(path).labels.to_pylist()
        found.append([{name: value for name, value in row.items() if name != "cpu_s"} for row in rows])
    assert found[0] == found[1]
