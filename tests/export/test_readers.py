"""Every format opened by the reader it is for, or by the documented rules of a trainer that PyPI does not carry."""

from __future__ import annotations

import json
import tarfile
import tomllib
from pathlib import Path
from typing import Any

import av
import datasets
import imageio.v3 as iio
import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset
import yaml
from squares import FORMATS, SplitSource, build

from generator.export import DatasetSource, ExportOptions, as_read
from generator.export.run import export
from generator.media.video import decode
from generator.versions.working.working_folder import WorkingFolder


def by_id(table: pa.Table) -> dict[str, dict[str, Any]]:
    return {row["clip_id"]: row for row in table.to_pylist()}


def video_of(item: dict[str, Any]) -> bytes:
    """Return the bytes of a `Video(decode=False)` value."""
    return item["bytes"] if item["bytes"] is not None else Path(item["path"]).read_bytes()


def load(tmp_path: Path, *args: str, **options: Any) -> Any:
    """Call `load_dataset` with a cache of its own, so that nothing of an earlier run is read."""
    return datasets.load_dataset(*args, cache_dir=str(tmp_path / "hf-cache"), **options)


def undecoded(loaded: datasets.Dataset) -> datasets.Dataset:
    return loaded.cast_column("video", datasets.Video(decode=False))


def test_videofolder_loads_plainly_with_videos_captions_and_typed_labels(source: DatasetSource, tmp_path: Path) -> None:
    export(source, "videofolder", tmp_path / "out")
    loaded = load(tmp_path, str(tmp_path / "out"))
    assert list(loaded) == ["train"] and loaded["train"].num_rows == source.labels.num_rows
    assert isinstance(loaded["train"].features["video"], datasets.Video)
    rows = by_id(source.labels)
    for item in undecoded(loaded["train"]):
        row = rows.pop(item["clip_id"])
        assert video_of(item["video"]) == source.clip_path(row["clip_id"]).read_bytes()
        assert {name: item[name] for name in row} == row
    assert rows == {}
    assert loaded["train"].features["shutter_exposure_s"] == datasets.Value("float64")
    assert loaded["train"].features["aperture_judged"] == datasets.Value("bool")


def test_videofolder_has_one_folder_and_one_set_per_split(split_source: SplitSource, tmp_path: Path) -> None:
    export(split_source, "videofolder", tmp_path / "out")
    loaded = load(tmp_path, str(tmp_path / "out"))
    assert set(loaded) == {"train", "validation", "test"}
    for name, part in loaded.items():
        expected = {row["clip_id"] for row in split_source.labels.to_pylist() if row["split"] == name}
        assert set(part["clip_id"]) == expected and expected
    named = load(tmp_path, "videofolder", data_dir=str(tmp_path / "out" / "test"), split="train", drop_labels=True)
    assert set(named["clip_id"]) == set(loaded["test"]["clip_id"])


def test_finetrainers_opens_its_folder_as_a_videofolder(source: DatasetSource, tmp_path: Path) -> None:
    export(source, "finetrainers", tmp_path / "out")
    loaded = load(tmp_path, "videofolder", data_dir=str(tmp_path / "out"), split="train")
    rows = by_id(source.labels)
    assert loaded.column_names == ["video", "caption"] and loaded.num_rows == len(rows)
    for item in undecoded(loaded):
        assert item["caption"] == rows[Path(item["video"]["path"]).stem]["caption"]
    config = json.loads((tmp_path / "out" / "dataset_config.json").read_text())["datasets"][0]
    assert config["video_resolution_buckets"] == [[1, 48, 64], [5, 48, 64], [9, 48, 64]]


def test_diffsynth_reads_its_csv_with_pandas_and_joins_paths_to_the_base(source: DatasetSource, tmp_path: Path) -> None:
    export(source, "diffsynth", tmp_path / "out")
    table = pandas.read_csv(tmp_path / "out" / "metadata.csv")
    assert list(table.columns) == ["video", "prompt"] and len(table) == source.labels.num_rows
    rows = by_id(source.labels)
    for video, prompt in table.itertuples(index=False):
        row = rows[Path(video).stem]
        assert prompt == row["caption"]
        assert len(decode(tmp_path / "out" / video)) == row["frames"]


def test_musubi_tuner_files_name_existing_clips_of_the_stated_length(source: DatasetSource, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(source, "musubi-tuner", out)
    config = tomllib.loads((out / "dataset.toml").read_text())
    assert set(config["general"]) <= {
        "resolution",
        "caption_extension",
        "batch_size",
        "num_repeats",
        "enable_bucket",
        "bucket_no_upscale",
    }
    assert len({entry["cache_directory"] for entry in config["datasets"]}) == len(config["datasets"])
    seen, rows = set(), by_id(source.labels)
    for entry in config["datasets"]:
        (frames,) = entry["target_frames"]
        assert frames % 4 == 1 and entry["resolution"] == [64, 48] and entry["frame_extraction"] == "head"
        for line in (out / entry["video_jsonl_file"]).read_text(encoding="utf-8").splitlines():
            item = json.loads(line)
            clip_id = Path(item["video_path"]).stem
            assert item["caption"] == rows[clip_id]["caption"]
            assert len(decode(out / item["video_path"])) == frames
            seen.add(clip_id)
    assert seen == set(rows)


def test_ai_toolkit_folders_hold_one_length_each_and_stills_are_pictures(source: DatasetSource, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(source, "ai-toolkit", out, ExportOptions(root=str(out)))
    config = yaml.safe_load((out / "datasets.yaml").read_text(encoding="utf-8"))
    seen, rows = set(), by_id(source.labels)
    for entry in config["datasets"]:
        endings = {".png"} if entry["num_frames"] == 1 else {".mp4"}
        media = [path for path in Path(entry["folder_path"]).rglob("*") if path.suffix in (".mp4", ".png")]
        assert {path.suffix for path in media} == endings
        for path in media:
            assert path.with_suffix(".txt").read_text(encoding="utf-8").strip() == rows[path.stem]["caption"]
            frames = decode(path) if path.suffix == ".mp4" else iio.imread(path)[None]
            assert len(frames) == entry["num_frames"]
            assert np.array_equal(frames, decode(source.clip_path(path.stem)))
            seen.add(path.stem)
    assert seen == set(rows)


def test_webdataset_reads_shards_back_in_order(split_source: SplitSource, tmp_path: Path) -> None:
    export(split_source, "webdataset", tmp_path / "out")
    for split in ("train", "validation", "test"):
        shards = [str(path) for path in sorted((tmp_path / "out" / split).glob("*.tar"))]
        samples = list(webdataset.WebDataset(shards, shardshuffle=False, empty_check=False))
        expected = [row for row in split_source.labels.to_pylist() if row["split"] == split]
        assert [sample["__key__"] for sample in samples] == [row["clip_id"] for row in expected]
        for sample, row in zip(samples, expected, strict=True):
            assert sample["mp4"] == split_source.clip_path(row["clip_id"]).read_bytes()
            assert json.loads(sample["json"]) == row and sample["txt"].decode() == row["caption"]


def test_webdataset_shards_also_load_with_hugging_face_given_the_types(source: DatasetSource, tmp_path: Path) -> None:
    # Without `features` it takes the types from the first samples, where a column can be all null, and fails.
    export(source, "webdataset", tmp_path / "out")
    features = datasets.Features(
        {
            "json": dict(datasets.Features.from_arrow_schema(source.labels.schema)),
            "mp4": datasets.Video(decode=False),
            "txt": datasets.Value("string"),
            "__key__": datasets.Value("string"),
            "__url__": datasets.Value("string"),
        }
    )
    shards = {"train": str(tmp_path / "out/train/*.tar")}
    loaded = load(tmp_path, "webdataset", data_files=shards, split="train", features=features)
    assert [item["json"] for item in loaded] == source.labels.to_pylist()
    assert [video_of(item["mp4"]) for item in loaded] == [
        source.clip_path(clip_id).read_bytes() for clip_id in source.labels["clip_id"].to_pylist()
    ]


def test_webdataset_cuts_shards_by_number_and_size(
    source: DatasetSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("generator.export.webdataset_shards.CLIPS_PER_SHARD", 4)
    export(source, "webdataset", tmp_path / "out")
    shards = sorted((tmp_path / "out" / "train").iterdir())
    assert len(shards) == -(-source.labels.num_rows // 4)
    samples = webdataset.WebDataset([str(path) for path in shards], shardshuffle=False)
    assert [sample["__key__"] for sample in samples] == source.labels["clip_id"].to_pylist()


def test_nothing_in_a_shards_headers_varies_between_machines(source: DatasetSource, tmp_path: Path) -> None:
    export(source, "webdataset", tmp_path / "out")
    with tarfile.open(tmp_path / "out/train/train-000000.tar") as tar:
        members = tar.getmembers()
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode, m.isfile()) for m in members} == {(0, 0, 0, "", "", 0o644, True)}
    names = [f"{clip_id}.{ending}" for clip_id in source.labels["clip_id"].to_pylist() for ending in ("json", "mp4", "txt")]
    assert [member.name for member in members] == names


def test_lance_reads_every_label_and_the_clips_back(split_source: SplitSource, tmp_path: Path) -> None:
    lance = pytest.importorskip("lance")
    export(split_source, "lance", tmp_path / "out")
    table = lance.dataset(str(tmp_path / "out" / "squares.lance")).to_table()
    assert table.select(split_source.labels.column_names).to_pylist() == split_source.labels.to_pylist()
    for clip_id, video in zip(table["clip_id"].to_pylist(), table["video"].to_pylist(), strict=True):
        assert video == split_source.clip_path(clip_id).read_bytes()
    part = lance.dataset(str(tmp_path / "out" / "squares.lance")).to_table(filter="split = 'test' AND frames = 5")
    assert part.num_rows == sum(row["split"] == "test" and row["frames"] == 5 for row in split_source.labels.to_pylist())


def research_reader(directory: Path) -> list[tuple[Path, list[float]]]:
    """List media and controls of a `[[directory]]` as the research code does: sub-folders whose names are numbers."""
    found, counts = [], set()
    for folder in directory.iterdir():
        try:
            controls = [float(part) for part in folder.name.split("_")]
        except ValueError:
            continue
        counts.add(len(controls))
        found += [(path, controls) for path in folder.iterdir() if path.suffix not in (".txt", ".npz", ".json", ".parquet")]
    assert len(counts) == 1, "folders with different numbers of controls are an error there"
    return found


@pytest.mark.parametrize("preset", ["stopdown", "less-is-more"])
def test_the_research_code_reads_every_clip_with_its_control(source: DatasetSource, tmp_path: Path, preset: str) -> None:
    out = tmp_path / "out"
    export(source, "diffusion-pipe", out, ExportOptions(preset=preset, root=str(out)))
    rows, seen = by_id(source.labels), set()
    for config in sorted(out.glob("dataset_*.toml")):
        axis = config.stem.removeprefix("dataset_")
        for directory in tomllib.loads(config.read_text(encoding="utf-8"))["directory"]:
            for path, (control,) in research_reader(Path(directory["path"])):
                row = rows[path.stem]
                assert control == pytest.approx(expected_scalar(preset, axis, row), abs=1e-6)
                assert path.with_suffix(".txt").read_text(encoding="utf-8").strip() == row["caption"]
                seen.add(path.stem)
    assert seen == set(rows)


def expected_scalar(preset: str, axis: str, row: dict[str, Any]) -> float:
    if preset == "stopdown":
        return row[f"{axis}_control"]
    if axis == "shutter":
        return -float(np.log(row["shutter_exposure_s"] / 0.02) / np.log(5))
    return (275 - 1e6 / row["temperature_k"]) / 225 if axis == "temperature" else -row["aperture_control"]


def frames_read(video: Path, buckets: list[int], count: str) -> int:
    """Return how many frames diffusion-pipe takes of a video (0: skips it), by its utils/dataset.py and models/base.py.

    It counts them at the model's 16 a second: since August 2026 exactly, before that (and in the method's research code) from
    the duration in hundredths of a second. The largest bucket that fits, never that of pictures, is floored to 4n+1.
    """
    with av.open(str(video)) as container:
        seconds, stream = float(container.duration / av.time_base), container.streams.video[0]
        counted = int(stream.frames * 16 / float(stream.average_rate))
    if count == "hundredths":
        counted = int(16 * (int(seconds * 100) / 100))
    bucket = max((bucket for bucket in buckets if bucket <= counted), default=1)
    return (bucket - 1) // 4 * 4 + 1 if bucket > 1 else 0


@pytest.mark.parametrize("count", ["exact", "hundredths"])
def test_diffusion_pipe_old_and_new_reads_the_frames_of_every_clip(source: DatasetSource, tmp_path: Path, count: str) -> None:
    out = tmp_path / "out"
    export(source, "diffusion-pipe", out)
    config = tomllib.loads((out / "dataset.toml").read_text(encoding="utf-8"))
    assert config["frame_buckets"] == [1, 5, 9]
    rows = by_id(source.labels)
    for path in (out / "clips").glob("*.mp4"):
        frames, original = decode(path), decode(source.clip_path(path.stem))
        assert frames_read(path, config["frame_buckets"], count) == rows[path.stem]["frames"] == len(frames) - 1
        assert np.abs(frames[:-1].astype(float) - original).mean() < 2.0
        assert np.abs(frames[-1].astype(float) - original[-1]).mean() < 2.0


def test_one_frame_more_is_enough_for_every_length() -> None:
    assert all(as_read.resampled_frames(frames + 1, 16) == frames for frames in range(5, 1026, 4))
    assert [as_read.resampled_frames(frames, 16) for frames in (5, 9)] == [1, 5]  # what became of clips without it


def test_clips_of_another_rate_and_size_are_read_otherwise_and_that_is_said(tmp_path: Path) -> None:
    path = tmp_path / "odd"
    video = {"width": 320, "height": 180, "fps": 24}
    build(path, *(f"video.{key}={value}" for key, value in video.items()), "axes.shutter.neutral=1/120")
    odd = DatasetSource(WorkingFolder.open(path))
    report = export(odd, "diffusion-pipe", tmp_path / "dp")
    assert tomllib.loads((tmp_path / "dp/dataset.toml").read_text())["frame_buckets"] == [1, 5]
    assert [note.partition(":")[0] for note in report.notes] == [
        "320x180 is no multiple of 16 pixels, which models take",
        "clips of 5 frames at 24 a second are resampled to 16",
        "clips of 9 frames at 24 a second are resampled to 16",
    ]
    assert "320x176" in report.notes[0] and "dropped" in report.notes[1] and "5 are left" in report.notes[2]
    assert all(note in (tmp_path / "dp/README.md").read_text() for note in report.notes)
    for name in ("musubi-tuner", "finetrainers", "diffsynth", "ai-toolkit"):
        size, speed = export(odd, name, tmp_path / name).notes
        assert "320x176" in size and "24 frames a second" in speed
    buckets = json.loads((tmp_path / "finetrainers/dataset_config.json").read_text())["datasets"][0]
    assert buckets["video_resolution_buckets"] == [[1, 176, 320], [5, 176, 320], [9, 176, 320]]


def test_what_fits_the_models_is_said_nothing_of(source: DatasetSource, tmp_path: Path) -> None:
    assert not any(export(source, name, tmp_path / name).notes for name in FORMATS if name != "lance")


def test_several_controls_share_one_folder_name(source: DatasetSource, tmp_path: Path) -> None:
    class TwoAxes:
        path, license, origin, clip_path = source.path, source.license, source.origin, source.clip_path

        @property
        def labels(self) -> pa.Table:
            table = source.labels.filter(pa.compute.is_valid(source.labels["shutter_control"]))
            extra = {"temperature_control": -0.25, "temperature_k": 8720.0}
            for name, value in extra.items():
                column = pa.array([value] * table.num_rows, pa.float64())
                table = table.set_column(table.column_names.index(name), table.schema.field(name), column)
            return table

    out = tmp_path / "out"
    export(TwoAxes(), "diffusion-pipe", out, ExportOptions(preset="stopdown", root=str(out)))
    config = tomllib.loads((out / "dataset_shutter+temperature.toml").read_text(encoding="utf-8"))
    rows = by_id(source.labels)
    found = [item for directory in config["directory"] for item in research_reader(Path(directory["path"]))]
    assert len(found) == TwoAxes().labels.num_rows
    for path, controls in found:
        assert controls == pytest.approx([rows[path.stem]["shutter_control"], -0.25], abs=1e-6)


def test_labels_travel_with_every_format_that_has_no_place_for_them(source: DatasetSource, tmp_path: Path) -> None:
    for name in ("diffusion-pipe", "musubi-tuner", "finetrainers", "diffsynth", "ai-toolkit"):
        export(source, name, tmp_path / name)
        assert pq.read_table(tmp_path / name / "labels.parquet").equals(source.labels)


def test_a_dataset_folder_itself_loads_as_videos_and_not_as_text(
    dataset: WorkingFolder, source: DatasetSource, tmp_path: Path
) -> None:
    from generator.card.files import lineage_files
    from generator.store.labels import write_labels

    folder = tmp_path / "folder"
    (folder / "clips").mkdir(parents=True)
    labels = write_labels(folder / "labels.parquet", source.labels.schema, [source.labels])
    files = lineage_files(source.origin, labels, license=source.license)
    for path in (dataset.path / "clips").iterdir():
        (folder / "clips" / path.name).write_bytes(path.read_bytes())
    for name, data in files.items():
        (folder / name).write_bytes(b"".join(data))
    loaded = load(tmp_path, str(folder), split="unsplit")
    assert loaded.column_names == ["video"] and loaded.num_rows == source.labels.num_rows
