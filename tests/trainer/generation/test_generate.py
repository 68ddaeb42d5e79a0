"""Generation: one noise for a sweep, records that tell a finished video from another, grids, resumption, bad input.

Array legend: N videos, T frames, H rows, W columns, 3 channels.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from generation_support import SMALL, generate_sweep, output, run, save_random, small_config
from PIL import Image

from generator.media.video import decode
from scenes.errors import InputError
from trainer.adapters.saved import SavedAdapter
from trainer.backbones.load import load_backbone
from trainer.commands import generate as module
from trainer.commands.generate import command
from trainer.generation.grid import lay_out, moving_grid, still_grid
from trainer.generation.load_pipeline import Loading, default_sampling, load_controlled, place, resolved
from trainer.generation.plan import make_points, make_rows
from trainer.generation.prompts import Prompt
from trainer.generation.sampler import Sampling
from trainer.pipelines.controlled_wan import ControlledWan

TINY = Sampling(width=32, height=32, frames=5, steps=2, guidance=3.0, text_tokens=12)
BALL = ["--prompt", "a red ball"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home with the tiny backbone in its cache and two adapters."""
    folder = tmp_path_factory.mktemp("generate")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        pipe = load_backbone("tiny-random")
        save_random(pipe, folder / "two", small_config("shutter", "temperature"))
        save_random(pipe, folder / "one", small_config("shutter"))
        save_random(pipe, folder / "lora", small_config("shutter", control=False))
        yield folder


@pytest.fixture(scope="module")
def pipe(home: Path) -> ControlledWan:
    """A controlled pipeline of one axis."""
    loaded = ControlledWan.from_pretrained("tiny-random", home / "one")
    loaded.set_progress_bar_config(disable=True)
    return loaded


def points(*controls: float) -> list[dict[str, float]]:
    """Return points of shutter."""
    return [{"shutter": control} for control in controls]


def test_a_sweep_shares_its_noise(pipe: ControlledWan) -> None:
    sweep = generate_sweep(pipe, "a red ball", points(-1, 0, 0, 1), sampling=TINY, seed=5)
    assert sweep.frames_NTHW3.shape == (4, 5, 32, 32, 3) and sweep.frames_NTHW3.dtype == np.uint8
    assert sweep.labels == (("1/400",), ("1/80",), ("1/80",), ("1/16",))
    low, middle, again, high = sweep.frames_NTHW3
    assert np.array_equal(middle, again)
    assert not np.array_equal(low, middle) and not np.array_equal(middle, high)
    bare = generate_sweep(pipe, "a red ball", points(-1, 1), sampling=TINY, seed=5, strength=0.0).frames_NTHW3
    assert np.array_equal(bare[0], bare[1])
    other = generate_sweep(pipe, "a red ball", points(-1), sampling=TINY, seed=6, strength=0.0).frames_NTHW3
    assert not np.array_equal(bare[0], other[0])


def test_batches_give_the_same_videos_and_count_steps(pipe: ControlledWan) -> None:
    steps: list[tuple[int, int]] = []
    alone = generate_sweep(pipe, "a car", points(-1, 0.3, 1), sampling=TINY).frames_NTHW3
    batched = generate_sweep(
        pipe, "a car", points(-1, 0.3, 1), sampling=TINY, batch=2, on_step=lambda done, every: steps.append((done, every))
    ).frames_NTHW3
    assert np.abs(alone.astype(int) - batched).max() <= 1
    assert steps == [(2, 6), (4, 6), (5, 6), (6, 6)]


def test_a_sweep_is_what_the_pipeline_gives(pipe: ControlledWan) -> None:
    """Text encoded once and handed on is the prompt itself."""
    swept = generate_sweep(pipe, "a car", points(0.5), sampling=TINY, seed=3, negative="rain", mode="joint").frames_NTHW3
    called = pipe(
        "a car",
        negative_prompt="rain",
        control=0.5,
        mode="joint",
        generator=torch.Generator().manual_seed(3),
        height=32,
        width=32,
        num_frames=5,
        num_inference_steps=2,
        guidance_scale=3.0,
        max_sequence_length=12,
    ).frames
    assert np.array_equal(swept[0], np.rint(called[0] * 255).astype(np.uint8))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"width": 40}, "40x32 does not fit this backbone; width must be a multiple of 16, height of 16, the nearest is 32x32"),
        ({"height": 8}, "the nearest is 32x16"),
        ({"frames": 8}, r"8 frames do not fit this backbone; give 4n \+ 1, .* the nearest is 9"),
        ({"frames": 0}, "the nearest is 1"),
        ({"steps": 0}, "0 steps"),
        ({"guidance": -1.0}, "guidance -1"),
    ],
)
def test_sizes_that_cannot_be(pipe: ControlledWan, changed: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        generate_sweep(pipe, "a car", points(0), sampling=replace(TINY, **changed))


def test_too_little_memory_says_what_to_lower(pipe: ControlledWan) -> None:
    """The hook fails as torch does when a GPU is full; everything after it is the real path."""

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    handle = pipe.transformer.blocks[3].register_forward_pre_hook(full)
    try:
        with pytest.raises(InputError, match="out of memory at 32x32x5, 2 at a time; lower --batch, --frames"):
            generate_sweep(pipe, "a car", points(0, 1), sampling=TINY, batch=2)
    finally:
        handle.remove()


def test_numbers_that_are_none_make_no_picture(pipe: ControlledWan) -> None:
    handle = pipe.transformer.register_forward_hook(lambda _m, _a, out: (out[0] * float("nan"),))
    try:
        with pytest.raises(InputError, match="no finite picture"):
            generate_sweep(pipe, "a car", points(0), sampling=TINY)
    finally:
        handle.remove()


def test_videos_records_and_grids(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = [*BALL, "--shutter", "1/400,1/16", "--mode", "decoupled", "--mode", "joint", "--seeds", 2, *SMALL]
    report = json.loads(output(command, "--adapter", home / "two", "--out", out, "--json", *words))
    assert (report["made"], report["found"]) == (8, 0)
    index = json.loads((out / "index.json").read_text())
    assert len(index["videos"]) == 8 and {video["mode"] for video in index["videos"]} == {"decoupled", "joint"}
    for entry in index["videos"]:
        record = json.loads((out / entry["record"]).read_text())
        recipe = record["recipe"]
        assert decode(out / entry["video"]).shape == (5, 32, 32, 3)
        assert recipe["prompt"] == "a red ball" and recipe["backbone"]["id"] == "tiny-random"
        assert recipe["values"]["shutter"] in (pytest.approx(1 / 400), pytest.approx(1 / 16))
        assert recipe["values"]["temperature"] == pytest.approx(6500)
        assert recipe["sampling"]["steps"] == 2 and recipe["scheduler"]["class"] == "UniPCMultistepScheduler"
        assert len(recipe["adapter"]["digest"]) == 64 and record["versions"]["torch"] == torch.__version__
    assert decode(out / "grid.mp4").shape[0] == 5
    with Image.open(out / "grid.png") as grid:
        assert grid.size == tuple(reversed(decode(out / "grid.mp4").shape[1:3]))
    page = (out / "sweep.html").read_text()
    assert page.count('data-src="data:video/mp4;base64,') == 8 and "1/400" in page and "http" not in page.split("<script>")[0]


def test_a_finished_video_is_kept_and_another_is_not_overwritten(home: Path, tmp_path: Path) -> None:
    words = ["--adapter", home / "one", "--out", tmp_path, *BALL, *SMALL]
    first = output(command, *words, "--shutter", "1/400,1/16")
    kept = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.glob("*seed*")}
    assert "2 videos made" in first and len(kept) == 4
    (tmp_path / "a-red-ball_seed-0_decoupled_shutter-1-16.mp4").unlink()
    again = output(command, *words, "--shutter", "1/400,1/80,1/16")
    assert "2 videos made, 1 were there" in again
    after = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.glob("*seed*")}
    assert {name: after[name][0] for name in kept} == {name: data for name, (data, _) in kept.items()}
    assert all(after[name] == kept[name] for name in kept if "1-400" in name)
    result = run(command, *words, "--shutter", "1/400", "--guidance", 2)
    assert isinstance(result.exception, InputError)
    assert "made with other settings (sampling.guidance 5.0, now 2.0); choose another --out, or replace it" in str(
        result.exception
    )
    assert "1 videos made" in output(command, *words, "--shutter", "1/400", "--guidance", 2, "--force")


def test_strange_and_changed_videos_are_not_overwritten(home: Path, tmp_path: Path) -> None:
    words = ["--adapter", home / "one", "--out", tmp_path, *BALL, *SMALL, "--shutter", "1/400"]
    video = tmp_path / "a-red-ball_seed-0_decoupled_shutter-1-400.mp4"
    video.write_bytes(b"mine")
    assert "without a record" in str(run(command, *words).exception) and video.read_bytes() == b"mine"
    output(command, *words, "--force")
    video.write_bytes(video.read_bytes() + b"x")
    assert "changed since it was made" in str(run(command, *words).exception)


def test_an_interrupted_run_goes_on(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--adapter", home / "one", *BALL, *SMALL, "--shutter", "1/400..1/16:3"]
    whole = tmp_path / "whole"
    output(command, *words, "--out", whole)
    real, calls = ControlledWan.__call__, 0

    def interrupted(*args: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return real(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(ControlledWan, "__call__", interrupted)
        result = run(command, *words, "--out", tmp_path / "cut")
    assert result.exit_code == 130 and "2 of 3 videos are finished" in result.stderr
    assert len(list((tmp_path / "cut").glob("*.mp4"))) == 2 and not (tmp_path / "cut" / "index.json").exists()
    assert "1 videos made, 2 were there" in output(command, *words, "--out", tmp_path / "cut")
    names = sorted(path.name for path in whole.iterdir())
    assert names == sorted(path.name for path in (tmp_path / "cut").iterdir())
    assert all((tmp_path / "cut" / name).read_bytes() == (whole / name).read_bytes() for name in names)


def test_a_mode_without_control_is_sampled_once(home: Path, tmp_path: Path) -> None:
    words = ["--adapter", home / "one", "--out", tmp_path, *BALL, *SMALL, "--shutter", "1/400,1/16"]
    output(command, *words, "--mode", "lora_only", "--mode", "decoupled")
    frames = {path.stem.split("_", 2)[2]: decode(path) for path in tmp_path.glob("*seed*.mp4")}
    assert np.array_equal(frames["lora-only_shutter-1-400"], frames["lora-only_shutter-1-16"])
    assert not np.array_equal(frames["decoupled_shutter-1-400"], frames["decoupled_shutter-1-16"])


def test_an_adapter_without_control_and_a_still(home: Path, tmp_path: Path) -> None:
    still = ["--width", 32, "--height", 32, "--frames", 1, "--steps", 1, "--text-tokens", 12]
    words = output(command, "--adapter", home / "lora", "--out", tmp_path, *BALL, *still)
    assert "1 videos made" in words and "playing" not in words and not (tmp_path / "grid.mp4").exists()
    assert (tmp_path / "a-red-ball_seed-0_lora-only.mp4").exists() and "no control" in (tmp_path / "sweep.html").read_text()


def test_a_packed_backbone_in_bfloat16(home: Path, tmp_path: Path) -> None:
    words = ["--adapter", home / "one", "--out", tmp_path, *BALL, *SMALL, "--shutter", "1/400,1/16"]
    output(command, *words, "--quantize", "nf4", "--dtype", "bf16")
    low, high = (decode(path) for path in sorted(tmp_path.glob("*seed*.mp4")))
    assert not np.array_equal(low, high)
    assert "quantize nf4, now none" in str(run(command, *words, "--dtype", "bf16").exception)


def test_the_autoencoder_stays_wide_under_bfloat16(home: Path) -> None:
    card = ControlledWan.from_pretrained("tiny-random", home / "one").card
    loaded = load_controlled(SavedAdapter.open(home / "one"), resolved(Loading(dtype="bf16"), card))
    assert loaded.vae.dtype == torch.float32 and loaded.transformer.dtype == torch.bfloat16


def test_offloaded_parts_give_the_same_videos(home: Path, pipe: ControlledWan) -> None:
    """The text is encoded outside the pipeline's call, and every call frees the hooks: both must not matter."""
    offloaded = load_controlled(SavedAdapter.open(home / "one"), resolved(Loading(device="cpu"), pipe.card))
    place(offloaded, "cpu", "model")
    assert offloaded.transformer._hf_hook is not None and offloaded.text_encoder._hf_hook is not None
    for prompt in ("a car", "a red ball"):
        own, other = (generate_sweep(one, prompt, points(-1, 1), sampling=TINY) for one in (pipe, offloaded))
        assert np.array_equal(own.frames_NTHW3, other.frames_NTHW3)


def test_a_dry_run_makes_nothing(home: Path, tmp_path: Path) -> None:
    words = ["--adapter", home / "two", "--out", tmp_path / "out", *BALL, "--shutter", "1/400..1/16:5", "--dry-run"]
    plan = json.loads(output(command, *words, "--temperature", "3200K,6500K", "--json"))
    assert len(plan["videos"]) == 10 and plan["videos"][1]["labels"] == ["1/400", "6500 K"]
    paired = output(command, *words, "--temperature", "2000K..20000K:5", "--zip")
    assert "5 videos into" in paired and "2000 K" in paired
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--adapter", "nowhere"], "adapter nowhere does not exist"),
        (["--shutter", "1/50", "--aperture", "f/2"], "does not control 'aperture'; it controls shutter"),
        (["--shutter", "f/2"], "reads as aperture"),
        (["--shutter", "1/2", "--limit", "1"], "control 2.29, beyond the limit 1"),
        (["--mode", "jiont"], "mode 'jiont' is unknown"),
        (["--backbone", "tiny-random:1"], "is another one"),
        (["--backbone", "tiny-rndom"], "neither a folder nor a hub id"),
        (["--device", "tpu9"], "device 'tpu9'"),
        (["--offload", "model", "--device", "cpu"], "leave it out on the CPU"),
        (["--offload", "disc"], r"--offload disc is unknown; allowed are none, model, group, sequential"),
        (["--quantize", "fp3"], "quantization 'fp3' is unknown"),
        (["--dtype", "bf61"], "--dtype bf61 is unknown"),
        (["--fps", "0"], "0 fps"),
        (["--batch", "0"], "batch 0"),
        (["--frames", "6"], "the nearest is 5"),
        (["--strength", "nan"], "strength nan"),
        (["--frames", "-1"], "-1 frames do not fit"),
        (["--guidance", "nan"], "guidance nan cannot be"),
        (["--steps", "0"], "0 steps make no video"),
        (["--steps", "10000000000"], "at most 1000, as many as"),
        (["--width", "10000000"], "at most 1025 frames and 8192 pixels a side"),
        (["--frames", "1000000001"], "at most 1025 frames"),
        (["--control-guidance", "2", "--guidance", "1"], "needs the unconditional pass"),
        (["--control-guidance", "2", "--mode", "backbone_only"], "in mode backbone_only no control acts"),
        (["--text-tokens", "0"], "0 text tokens cannot be; give 1 to 4096"),
    ],
)
@pytest.mark.parametrize("dry", [(), ("--dry-run",)], ids=["run", "dry-run"])
def test_bad_input_is_one_line(home: Path, tmp_path: Path, words: list[str], message: str, dry: tuple[str, ...]) -> None:
    """A dry run refuses all that a run refuses, but for what only weights tell."""
    if dry and "is another one" in message:
        return
    result = run(command, "--adapter", home / "one", "--out", tmp_path, *BALL, *SMALL, *words, *dry)
    with pytest.raises(InputError, match=message):
        raise result.exception or AssertionError(result.output)
    assert "\n" not in str(result.exception) and not list(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_cuda_asked_for_but_absent(home: Path) -> None:
    result = run(command, "--adapter", home / "one", *BALL, "--device", "cuda")
    assert "torch sees no CUDA GPU here; use --device cpu" in str(result.exception)


def test_another_backbone_may_be_allowed(home: Path, tmp_path: Path) -> None:
    words = ["--adapter", home / "one", "--out", tmp_path, *BALL, *SMALL, "--shutter", "1/400"]
    output(command, *words, "--backbone", "tiny-random:1", "--allow-other-backbone")
    assert "backbone.id tiny-random:1, now tiny-random" in str(run(command, *words).exception)


def test_values_beyond_the_trained_range_are_told(home: Path, tmp_path: Path) -> None:
    result = run(command, "--adapter", home / "one", "--out", tmp_path, *BALL, "--shutter", "1/2", "--dry-run")
    assert "shutter 0.5s is control 2.29, beyond the trained range 1/400 to 1/16" in result.stderr


def test_the_help_needs_no_torch() -> None:
    import subprocess
    import sys

    code = f"import sys, {module.__name__}; sys.exit('torch' in sys.modules or 'diffusers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("columns", [1, 4, 40])
def test_grids_show_every_video_at_its_place(pipe: ControlledWan, columns: int) -> None:
    controls = {"shutter": tuple(np.linspace(-1, 1, columns))}
    rows = make_rows(pipe.axes, [Prompt(prompt="a ball"), Prompt(prompt="long " * 80)], make_points(controls), ["joint"])
    names = [video.name for row in rows for video in row.videos]

    def frames(video: object) -> np.ndarray:
        shade = 1 + names.index(video.name)  # type: ignore[attr-defined]
        return np.full((3, 24, 32, 3), (shade, 255 - shade, 7), np.uint8)

    layout = lay_out(rows, "title", "facts", (32, 24))
    page_HW3 = still_grid(layout, rows, frames)
    assert page_HW3.shape[0] % 2 == page_HW3.shape[1] % 2 == 0 and page_HW3.shape[1] <= 1800
    wide, tall = layout.cell
    for number, name in enumerate(names, 1):
        left, top = layout.places[name]
        assert (page_HW3[top : top + tall, left : left + wide] == (number, 255 - number, 7)).all()
    playing = moving_grid(layout, rows, frames)
    assert playing is not None and all(np.array_equal(frame, page_HW3) for frame in playing)


def test_what_is_not_asked_for_comes_from_backbone_and_training(pipe: ControlledWan) -> None:
    assert default_sampling(pipe, pipe.card).text_tokens == 512 and default_sampling(pipe, pipe.card).width == 64
    trained = pipe.card.model_copy(update={"recipe": {"backbone": {"text_max_length": 77}}})
    assert default_sampling(pipe, trained).text_tokens == 77
