"""The pass before training: every clip's latents and every caption's embedding, once; then the encoders leave memory.

What is computed is in the cache at once, so a pass that was killed goes on where it was, and several processes share the work.

Shapes: C latent channels, t h w latent frames, rows and columns; L text tokens, X text width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import torch
from diffusers import WanPipeline
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from generator.console.terminal import Console
from generator.errors import DamagedError
from trainer.backbones.memory import Offload, leave_device
from trainer.data.cache import TensorCache
from trainer.data.encoders import LatentEncoder, TextEncoder, pad_text
from trainer.data.records import TrainingClip, TrainingData, check_sizes

Report = Callable[[str, int, int], None]  # what is encoded, how many are done, how many there are
Item = TypeVar("Item")
Loaded = TypeVar("Loaded")

TEXT_LENGTH = 512  # tokens that Wan was trained with; shorter captions are padded with zeros, which it attends to


@dataclass(frozen=True, kw_only=True)
class Tally:
    """How many entries of a kind this process computed, and how many it found in the cache."""

    computed: int
    found: int


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """Where the encodings of clips lie: cache keys by digest of frames and by caption, and what the pass did."""

    latents: dict[str, str]
    texts: dict[str, str]
    text_length: int
    tallies: dict[str, Tally]  # "clips" and "captions"

    def summary(self) -> str:
        """Return one line that says what was computed and what was found."""
        parts = [f"{name}: {tally.computed} encoded, {tally.found} from the cache" for name, tally in self.tallies.items()]
        return "; ".join(parts)


@dataclass(frozen=True, kw_only=True)
class Share:
    """The part of the work that falls to one of several processes."""

    rank: int = 0
    ranks: int = 1


def encode_all(
    pipe: WanPipeline,
    data: TrainingData,
    cache: TensorCache,
    *,
    prompts: Sequence[str] = (),
    text_length: int = TEXT_LENGTH,
    device: torch.device | str = "cpu",
    share: Share | None = None,
    threads: int = 2,
    offload: Offload = "disk",
    report: Report | None = None,
) -> Encoded:
    """Encode on `device` what training and validation need; afterwards text encoder and VAE leave it as `offload` says.

    `disk` drops them from the pipeline, `cpu` moves them to main memory, `none` leaves them. Sizes are checked before anything
    is encoded. The empty caption and `prompts` (of previews) are always among the captions. Each of several processes encodes
    its share and returns all keys: let them wait for each other before they read. Raises InputError for a clip that the
    backbone cannot take.
    """
    used, said = share or Share(), report or _silent
    records = (*data.train, *data.validation)
    check_sizes(records, pipe)
    captions = list(dict.fromkeys(["", *prompts, *(record.caption for record in records)]))
    pipe.text_encoder.to(device)
    text_encoder = TextEncoder(pipe, cache, max_length=text_length)
    text_keys = {caption: text_encoder.key(caption) for caption in captions}
    text_tally = _encode_texts(text_encoder, captions[used.rank :: used.ranks], said)
    del text_encoder
    leave_device(pipe, "text_encoder", offload)

    distinct = list({record.frames_sha256: record for record in records}.values())
    pipe.vae.to(device)
    latent_encoder = LatentEncoder(pipe.vae, cache)
    latent_keys = {record.frames_sha256: latent_encoder.key(record.frames_sha256) for record in distinct}
    clip_tally = _encode_clips(latent_encoder, data, distinct[used.rank :: used.ranks], threads, said)
    del latent_encoder
    leave_device(pipe, "vae", offload)
    return Encoded(
        latents=latent_keys,
        texts=text_keys,
        text_length=text_length,
        tallies={"captions": text_tally, "clips": clip_tally},
    )


class EncodedReader:
    """Reads encodings when they are asked for, verified by their hashes, and keeps those that fit in `memory_bytes`."""

    def __init__(self, encoded: Encoded, cache: TensorCache, *, memory_bytes: int = 2 * 1024**3) -> None:
        self._encoded = encoded
        self._cache = cache
        self._free = memory_bytes
        self._kept: dict[str, Tensor] = {}

    def latents(self, record: TrainingClip) -> Tensor:
        """Return a clip's latents [C, t, h, w], float32; raises DamagedError."""
        return self._read(self._encoded.latents[record.frames_sha256], f"clip {record.clip_id}")

    def text(self, caption: str) -> Tensor:
        """Return a caption's embedding, zero-padded [L, X]; raises DamagedError."""
        embedding_LX = self._read(self._encoded.texts[caption], f"caption '{caption}'")
        return pad_text(embedding_LX, self._encoded.text_length)

    @property
    def kept_bytes(self) -> int:
        """How much of the encodings is in memory."""
        return sum(tensor.nbytes for tensor in self._kept.values())

    def _read(self, key: str, what: str) -> Tensor:
        if key in self._kept:
            return self._kept[key]
        tensor = self._cache.read(key)
        if tensor is None:
            raise DamagedError(f"the encoding of {what} is missing from {self._cache.root} or damaged; start again to renew it")
        if tensor.nbytes <= self._free:
            self._free -= tensor.nbytes
            self._kept[key] = tensor
        return tensor


@contextmanager
def rich_report(console: Console) -> Iterator[Report]:
    """Yield a report that draws a progress bar for each kind of entry."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        bars = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in bars:
                bars[what] = progress.add_task(f"encoding {what}", total=total)
            progress.update(bars[what], completed=done)

        yield report


def load_ahead(items: Iterable[Item], load: Callable[[Item], Loaded], threads: int) -> Iterator[tuple[Item, Loaded]]:
    """Yield every item with what `load` returns for it, in order; up to 2 * `threads` are loaded ahead (0: none)."""
    if threads < 1:
        yield from ((item, load(item)) for item in items)
        return
    waiting = iter(items)
    with ThreadPoolExecutor(threads) as pool:
        ahead: list[tuple[Item, Future[Loaded]]] = [(item, pool.submit(load, item)) for item in islice(waiting, 2 * threads)]
        try:
            while ahead:
                item, future = ahead.pop(0)
                loaded = future.result()
                ahead += [(following, pool.submit(load, following)) for following in islice(waiting, 1)]
                yield item, loaded
        finally:
            for _, future in ahead:
                future.cancel()


def _encode_texts(encoder: TextEncoder, captions: Sequence[str], report: Report) -> Tally:
    computed = 0
    for done, caption in enumerate(captions, start=1):
        if encoder.cache.read(encoder.key(caption)) is None:
            encoder.cache.write(encoder.key(caption), encoder.encode(caption))
            computed += 1
        report("captions", done, len(captions))
    return Tally(computed=computed, found=len(captions) - computed)


def _encode_clips(
    encoder: LatentEncoder, data: TrainingData, records: Sequence[TrainingClip], threads: int, report: Report
) -> Tally:
    missing = [record for record in records if encoder.cache.read(encoder.key(record.frames_sha256)) is None]
    found = len(records) - len(missing)
    report("clips", found, len(records))
    for done, (record, frames_THW3) in enumerate(load_ahead(missing, data.frames, threads), start=found + 1):
        encoder.cache.write(encoder.key(record.frames_sha256), encoder.encode(frames_THW3))
        report("clips", done, len(records))
    return Tally(computed=len(missing), found=found)


def _silent(what: str, done: int, total: int) -> None:
    return
