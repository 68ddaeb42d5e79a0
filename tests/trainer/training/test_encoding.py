"""The encoding pass: computed once, found afterwards, only what changed again; then the encoders are gone."""

from __future__ import annotations

import copy
import gc
import io
import threading
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from dataset_support import ONE_AXIS, make_dataset
from diffusers import WanPipeline
from rich.console import Console

from generator.errors import DamagedError
from scenes.errors import InputError
from trainer.backbones.load import load_backbone
from trainer.data import TrainingData, open_data
from trainer.data.batches import FlowBatches
from trainer.data.cache import TensorCache
from trainer.data.encoders import LatentEncoder, TextEncoder, pad_text
from trainer.data.encoding import Encoded, EncodedReader, Share, encode_all, load_ahead, rich_report

LENGTH = 24


@pytest.fixture
def pipe(tiny_folder: Path) -> WanPipeline:
    """A tiny backbone of its own for every test."""
    return load_backbone(str(tiny_folder))


@pytest.fixture(scope="module")
def data(tints: Path) -> TrainingData:
    """The small dataset."""
    return open_data(tints)


def counts(encoded: Encoded) -> tuple[int, int, int, int]:
    """Return captions computed and found, clips computed and found."""
    captions, clips = encoded.tallies["captions"], encoded.tallies["clips"]
    return captions.computed, captions.found, clips.computed, clips.found


def encode(pipe: WanPipeline, data: TrainingData, cache: Path, **options: object) -> Encoded:
    """Encode with both encoders left where they are."""
    return encode_all(pipe, data, TensorCache(cache), text_length=LENGTH, offload="none", **options)


def test_everything_is_computed_once_and_as_the_encoders_say(pipe: WanPipeline, data: TrainingData, tmp_path: Path) -> None:
    captions = {record.caption for record in (*data.train, *data.validation)} | {""}
    encoded = encode(pipe, data, tmp_path)
    assert counts(encoded) == (len(captions), 0, 17, 0)
    assert encoded.summary() == f"captions: {len(captions)} encoded, 0 from the cache; clips: 17 encoded, 0 from the cache"
    assert counts(encode(pipe, data, tmp_path)) == (0, len(captions), 0, 17)
    reader = EncodedReader(encoded, TensorCache(tmp_path))
    latent, text = LatentEncoder(pipe.vae, TensorCache(tmp_path / "x")), TextEncoder(pipe, TensorCache(tmp_path / "x"), LENGTH)
    for record in data.train:
        assert torch.equal(reader.latents(record), latent.encode(data.frames(record)))
        assert torch.equal(reader.text(record.caption), pad_text(text.encode(record.caption), LENGTH))
    assert reader.text("").shape == (LENGTH, pipe.text_encoder.config.d_model)


def test_encoders_leave_memory_and_the_pipeline(pipe: WanPipeline, data: TrainingData, tmp_path: Path) -> None:
    parts = [weakref.ref(pipe.text_encoder), weakref.ref(pipe.vae), *map(weakref.ref, pipe.vae.parameters())]
    encoded = encode_all(pipe, data, TensorCache(tmp_path), text_length=LENGTH)
    gc.collect()
    assert [part for part in parts if part() is not None] == []
    assert pipe.text_encoder is None and pipe.vae is None and pipe.transformer is not None
    assert EncodedReader(encoded, TensorCache(tmp_path)).latents(data.train[0]).shape[0] == 16


def test_the_text_encoder_is_gone_before_the_first_clip(pipe: WanPipeline, data: TrainingData, tmp_path: Path) -> None:
    text_encoder, seen = weakref.ref(pipe.text_encoder), []

    def report(what: str, done: int, total: int) -> None:
        seen.append((what, text_encoder() is not None))

    encode_all(pipe, data, TensorCache(tmp_path), text_length=LENGTH, report=report)
    assert set(seen) == {("captions", True), ("clips", False)}


def test_a_changed_clip_or_caption_is_computed_alone(pipe: WanPipeline, data: TrainingData, tmp_path: Path) -> None:
    captions = counts(encode(pipe, data, tmp_path))[0]
    said = replace(data, train=(replace(data.train[0], caption="something else"), *data.train[1:]))
    assert counts(encode(pipe, said, tmp_path))[0::2] == (1, 0)
    other = replace(data.validation[0], frames_sha256="f" * 64)
    assert other.frames_sha256 not in {record.frames_sha256 for record in data.train}
    with pytest.raises(DamagedError, match=other.clip_id):
        encode(pipe, replace(data, validation=(other,)), tmp_path)
    assert counts(encode(pipe, data, tmp_path)) == (0, captions, 0, 17)


def test_a_new_version_encodes_only_its_new_clips(pipe: WanPipeline, tmp_path: Path) -> None:
    make_dataset(tmp_path / "d", ONE_AXIS)
    first = open_data(tmp_path / "d")
    encode(pipe, first, tmp_path / "cache")
    make_dataset(tmp_path / "d", ONE_AXIS.replace("layers = [3, 1]", "layers = [3, 1, 5]"))
    second = open_data(tmp_path / "d")
    known = {record.frames_sha256 for record in (*first.train, *first.validation)}
    new = {record.frames_sha256 for record in (*second.train, *second.validation)} - known
    assert new and counts(encode(pipe, second, tmp_path / "cache"))[2] == len(new)


@pytest.mark.parametrize("change", ["weight", "dtype", "tiling", "statistics"])
def test_another_autoencoder_computes_clips_and_nothing_else(
    pipe: WanPipeline, data: TrainingData, tmp_path: Path, change: str
) -> None:
    captions = counts(encode(pipe, data, tmp_path))[0]
    pipe.vae = copy.deepcopy(pipe.vae)
    if change == "weight":
        with torch.no_grad():
            next(pipe.vae.parameters()).flatten()[0] += 0.01
    elif change == "dtype":
        pipe.vae.to(torch.bfloat16)
    elif change == "tiling":
        pipe.vae.enable_tiling()
    else:
        pipe.vae.register_to_config(latents_mean=[0.1] * 16)
    assert counts(encode(pipe, data, tmp_path)) == (0, captions, 17, 0)


@pytest.mark.parametrize("change", ["weight", "dtype", "length"])
def test_another_text_encoder_computes_captions_and_nothing_else(
    pipe: WanPipeline, data: TrainingData, tmp_path: Path, change: str
) -> None:
    captions = counts(encode(pipe, data, tmp_path))[0]
    length = LENGTH
    if change == "weight":
        with torch.no_grad():
            pipe.text_encoder.encoder.final_layer_norm.weight[0] += 0.01
    elif change == "dtype":
        pipe.text_encoder.to(torch.bfloat16)
    else:
        length += 1
    again = encode_all(pipe, data, TensorCache(tmp_path), text_length=length, offload="none")
    assert counts(again) == (captions, 0, 0, 17)


def test_a_pass_that_was_cut_off_goes_on(pipe: WanPipeline, data: TrainingData, tmp_path: Path) -> None:
    def stop(what: str, done: int, total: int) -> None:
        if what == "clips" and done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode(pipe, data, tmp_path, report=stop)
    assert counts(encode(pipe, data, tmp_path))[2:] == (12, 5)


def test_processes_share_the_work(pipe: WanPipeline, data: TrainingData, tmp_path: Path) -> None:
    shares = [encode(pipe, data, tmp_path, share=Share(rank=rank, ranks=3)) for rank in range(3)]
    assert [counts(share)[2:] for share in shares] == [(6, 0), (6, 0), (5, 0)]
    assert shares[0].latents == shares[1].latents and shares[0].texts == shares[2].texts
    whole = encode(pipe, data, tmp_path)
    assert counts(whole)[0::2] == (0, 0) and whole.latents == shares[0].latents


def test_a_clip_that_does_not_fit_stops_before_anything_is_encoded(
    pipe: WanPipeline, data: TrainingData, tmp_path: Path
) -> None:
    wrong = replace(data, validation=(*data.validation[:-1], replace(data.validation[-1], width=40)))
    with pytest.raises(InputError, match=f"clip {data.validation[-1].clip_id}: size 40x32 does not fit"):
        encode(pipe, wrong, tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_damaged_entry_is_renewed_by_the_pass_and_refused_by_the_reader(
    pipe: WanPipeline, data: TrainingData, tmp_path: Path
) -> None:
    cache = TensorCache(tmp_path)
    encoded = encode(pipe, data, tmp_path)
    for _ in range(2):
        path = cache.path(encoded.latents[data.train[0].frames_sha256])
        path.write_bytes(path.read_bytes()[:-1])
        reader = EncodedReader(encoded, cache)
        with pytest.raises(DamagedError, match=f"the encoding of clip {data.train[0].clip_id} is missing"):
            reader.latents(data.train[0])
        assert counts(encode(pipe, data, tmp_path))[2:] == (1, 16)
        assert torch.isfinite(reader.latents(data.train[0])).all()


def test_a_reader_keeps_what_fits_and_returns_the_same(pipe: WanPipeline, data: TrainingData, tmp_path: Path) -> None:
    encoded = encode(pipe, data, tmp_path)
    large, small = (EncodedReader(encoded, TensorCache(tmp_path), memory_bytes=size) for size in (2**30, 5000))
    for _ in range(2):
        for record in data.train:
            assert torch.equal(large.latents(record), small.latents(record))
    assert large.kept_bytes == sum(large.latents(r).nbytes for r in {r.frames_sha256: r for r in data.train}.values())
    assert 0 < small.kept_bytes <= 5000


def test_batches_hold_their_clips_in_order(pipe: WanPipeline, data: TrainingData, tmp_path: Path) -> None:
    reader = EncodedReader(encode(pipe, data, tmp_path), TensorCache(tmp_path))
    batches = FlowBatches(data.train, reader, batch_size=2, seed=0)
    by_id = {record.clip_id: record for record in data.train}
    for step in range(8):
        batch = batches.micro_batch(step, 0, 1)
        records = [by_id[clip_id] for clip_id in batch.clip_ids]
        assert torch.equal(batch.tensors["latents"], torch.stack([reader.latents(record) for record in records]))
        assert torch.equal(batch.tensors["text"], torch.stack([reader.text(record.caption) for record in records]))
        assert torch.equal(batch.tensors["controls"], torch.tensor([record.controls for record in records]))


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_loading_ahead_keeps_order_and_looks_only_so_far(threads: int) -> None:
    started: list[int] = []
    taken: list[int] = []
    lock = threading.Lock()

    def load(item: int) -> int:
        with lock:
            started.append(item)
            assert item < len(taken) + 2 * threads + 1
        return item * item

    def items() -> Iterator[int]:
        yield from range(20)

    for item, loaded in load_ahead(items(), load, threads):
        assert loaded == item * item
        taken.append(item)
    assert taken == list(range(20)) and sorted(started) == taken


def test_a_failing_load_is_raised_where_its_item_stands() -> None:
    def load(item: int) -> int:
        return 10 // (3 - item)

    got = []
    with pytest.raises(ZeroDivisionError):
        got.extend(loaded for _, loaded in load_ahead(range(9), load, 2))
    assert got == [3, 5, 10]


def test_progress_names_what_is_encoded(pipe: WanPipeline, data: TrainingData, tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with rich_report(console) as report:
        encode(pipe, data, tmp_path, report=report)
    text = console.file.getvalue()
    assert "encoding captions" in text and "encoding clips" in text and "17/17" in text
