"""The part of `verify` that reads files: hashes of views, objects and lossless frames; decoding and probing in workers.

Frames are uint8 `[T, H, W, 3]`, decoded from the encoded clip; a probe sees them and the frame rate, nothing else.
"""

from __future__ import annotations

import hashlib
import multiprocessing
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from generator.errors import DamagedError
from generator.media.read_clip import neutral_region, read
from generator.media.video import decode, frames_digest
from generator.recipe.plan import ClipPlan
from generator.store.objects import ClipRecord
from generator.store.record_keys import clip_key
from generator.truth.truth_names import frame_files
from generator.verify.findings import Problem, Row
from generator.versions.working.working_folder import WorkingFolder
from scenes.axes import Reading
from scenes.errors import StopdownError

Progress = Callable[[int, int], None]  # clips done, clips in all


@dataclass(frozen=True, kw_only=True)
class VerifyJob:
    """One clip for a worker: which files to hash, what they should hold, which probes to run and where."""

    clip_id: str
    view: Path
    object: Path
    lossless: tuple[tuple[Path, str], ...]
    sha256_bytes: str
    sha256_frames: str
    shape_THW3: tuple[int, int, int, int]
    fps: int
    axes: tuple[str, ...]
    where: tuple[int, int, int, int] | None


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a worker found: the view's digest and size (None: it is missing), other problems, and readings by axis."""

    clip_id: str
    digest: str | None
    size_bytes: int | None
    problems: tuple[Problem, ...]
    readings: Mapping[str, Reading]


def make_jobs(dataset: WorkingFolder, rows: Mapping[str, Row]) -> tuple[list[VerifyJob], list[Problem]]:
    """Return one job per labelled clip, and the problems that kept clips from having one."""
    records, problems = clip_records(dataset)
    jobs = []
    for clip in dataset.plan.clips:
        if clip.clip_id in rows:
            try:
                jobs.append(_job(dataset, clip, rows[clip.clip_id], records.get(clip.clip_id)))
            except DamagedError as error:
                problems.append(Problem(kind="label", where=clip.clip_id, message=str(error)))
    return jobs, problems


def run_jobs(jobs: Sequence[VerifyJob], progress: Progress | None, workers: int) -> dict[str, Found]:
    """Examine clips in `workers` processes (1: in this one) and return what was found, by clip id.

    Raises StopdownError where a process is killed.
    """
    found: dict[str, Found] = {}

    def collect(results: Iterable[Found]) -> None:
        for result in results:
            found[result.clip_id] = result
            if progress is not None:
                progress(len(found), len(jobs))

    if workers == 1 or len(jobs) < 2:
        collect(map(examine, jobs))
        return found
    # Spawned, not forked: a forked child inherits locks and threads of libraries that do not survive it.
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            collect(future.result() for future in as_completed([pool.submit(examine, job) for job in jobs]))
        except BrokenProcessPool:
            raise StopdownError("a verifying process was killed (out of memory?); run it again with one worker") from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return found


def examine(job: VerifyJob) -> Found:
    """Hash one clip's files, decode it and run its probes. Runs in a worker."""
    digest = file_digest(job.view)
    problems = list(_object_problems(job, digest))
    readings: Mapping[str, Reading] = {}
    if digest == job.sha256_bytes:
        try:
            readings = _read(job, problems)
        except Exception as error:  # whatever a decoder or a probe raises becomes this clip's problem, and the rest goes on
            problems.append(Problem(kind="decode", where=job.clip_id, message=f"cannot be read: {error!r}"))
    return Found(
        clip_id=job.clip_id,
        digest=digest,
        size_bytes=None if digest is None else job.view.stat().st_size,
        problems=tuple(problems),
        readings=readings,
    )


def file_problems(dataset: WorkingFolder, found: Mapping[str, Found], rows: Mapping[str, Row]) -> Iterator[Problem]:
    """Yield what is wrong with files: those of the clips, captions, strangers in clips/, objects that no label names."""
    owner = {row["sha256_bytes"]: clip_id for clip_id, row in rows.items()}
    for clip in dataset.plan.clips:
        if clip.clip_id in found:
            yield from _view_problems(found[clip.clip_id], rows[clip.clip_id], owner)
            yield from found[clip.clip_id].problems
        yield from _caption_problems(dataset.clip_path(clip.clip_id).with_suffix(".txt"), clip)
    folder = dataset.path / "clips"
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.suffix in (".mp4", ".txt") and path.stem not in dataset.plan.clip_by_id:
            yield Problem(kind="count", where=path.name, message="lies in clips/ and belongs to no clip of the plan")
    for digest in dataset.store.objects():
        if digest not in owner and file_digest(dataset.store.path(digest)) != digest:
            yield Problem(kind="object", where=digest, message="object does not match its sha256 (no label names it)")


def file_digest(path: Path) -> str | None:
    """Return the sha256 of a file's bytes, or None where there is no file."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return None


def clip_records(dataset: WorkingFolder) -> tuple[dict[str, ClipRecord], list[Problem]]:
    """Return the records of clips by id, and those that cannot be read.

    A clip's record is the one of the bytes that its label names; of several, with different truth, the one of this plan.
    """
    by_bytes: dict[str, list[ClipRecord]] = defaultdict(list)
    problems = []
    for path in sorted((dataset.store.root / "records").glob("??/*.json")):
        try:
            record = dataset.store.record(path.stem)
        except DamagedError as error:
            problems.append(Problem(kind="record", where=path.stem, message=str(error)))
            continue
        if record is not None:
            by_bytes[record.sha256_bytes].append(record)
    columns = (dataset.labels[name].to_pylist() for name in ("clip_id", "sha256_bytes"))
    records = {}
    for clip_id, digest in zip(*columns, strict=True):
        clip, found = dataset.plan.clip_by_id.get(clip_id), by_bytes.get(digest, [])
        if len(found) > 1 and clip is not None:
            found = [record for record in found if record.key == clip_key(dataset.plan, clip, record.blender)] or found
        if found:
            records[clip_id] = found[0]
    return records, problems


def _job(dataset: WorkingFolder, clip: ClipPlan, row: Row, record: ClipRecord | None) -> VerifyJob:
    """Return a worker's job; raises DamagedError when a hash is none, or when nothing says what lossless frames should hold."""
    video = dataset.plan.recipe.video
    frames = {} if record is None else frame_files(record.frames)
    kept = clip.frames * len(video.keep_frames)
    if len(frames) != kept:
        raise DamagedError(f"the store names {len(frames)} lossless frames of this clip, the recipe keeps {kept}")
    folder = dataset.path / "frames" / clip.clip_id
    return VerifyJob(
        clip_id=clip.clip_id,
        view=dataset.clip_path(clip.clip_id),
        object=dataset.store.path(row["sha256_bytes"]),
        lossless=tuple(
            (path, digest) for name, digest in frames.items() for path in (folder / name, dataset.store.path(digest))
        ),
        sha256_bytes=row["sha256_bytes"],
        sha256_frames=row["sha256_frames"],
        shape_THW3=(clip.frames, video.height, video.width, 3),
        fps=video.fps,
        axes=clip.axes,
        where=neutral_region(dataset.plan.scene_by_id[clip.scene_id].spec),
    )


def _object_problems(job: VerifyJob, digest: str | None) -> Iterator[Problem]:
    if not job.object.is_file():
        yield Problem(kind="object", where=job.clip_id, message=f"object {job.sha256_bytes[:12]} is missing from the store")
    elif not (digest is not None and job.view.samefile(job.object)) and file_digest(job.object) != job.sha256_bytes:
        yield Problem(kind="object", where=job.clip_id, message=f"object {job.sha256_bytes[:12]} does not match its sha256")
    for path, expected in job.lossless:
        actual = file_digest(path)
        if actual is None:
            yield Problem(kind="missing", where=job.clip_id, message=f"lossless frame {path.name} is missing")
        elif actual != expected:
            yield Problem(kind="bytes", where=job.clip_id, message=f"lossless frame {path.name} does not match its sha256")


def _read(job: VerifyJob, problems: list[Problem]) -> dict[str, Reading]:
    frames_THW3 = decode(job.view)
    if frames_THW3.shape != job.shape_THW3:
        message = f"decodes to shape {frames_THW3.shape}, the plan says {job.shape_THW3}"
        problems.append(Problem(kind="frames", where=job.clip_id, message=message))
        return {}
    if frames_digest(frames_THW3) != job.sha256_frames:
        problems.append(Problem(kind="frames", where=job.clip_id, message="decoded frames do not match sha256_frames"))
    return {axis: read(axis, frames_THW3, float(job.fps), job.where) for axis in job.axes}


def _view_problems(result: Found, row: Row, owner: Mapping[str, str]) -> Iterator[Problem]:
    name, said_bytes = f"clips/{result.clip_id}.mp4", row["size_bytes"]
    if result.digest is None:
        yield Problem(kind="missing", where=result.clip_id, message=f"{name} is missing")
    elif result.digest != row["sha256_bytes"]:
        other = owner.get(result.digest)
        if other is not None:
            yield Problem(kind="swapped", where=result.clip_id, message=f"{name} holds the bytes of clip {other}")
        else:
            size = "" if result.size_bytes == said_bytes else f" ({result.size_bytes} bytes, the label says {said_bytes})"
            yield Problem(kind="bytes", where=result.clip_id, message=f"{name} does not match its sha256{size}")
    elif result.size_bytes != said_bytes:
        message = f"label size_bytes is {said_bytes}, the file has {result.size_bytes}"
        yield Problem(kind="label", where=result.clip_id, message=message)


def _caption_problems(path: Path, clip: ClipPlan) -> Iterator[Problem]:
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        yield Problem(kind="caption", where=clip.clip_id, message=f"clips/{path.name} is missing")
        return
    if text != clip.caption.encode() + b"\n":
        yield Problem(kind="caption", where=clip.clip_id, message=f"clips/{path.name} does not hold the caption of the plan")
