"""Controls that move in time: each latent frame obeys its own, a constant curve is the scalar, bad curves are refused.

Shapes: B batch, F latent frames, A axes.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from generation_support import SMALL, output, run, save_random, small_config
from hypothesis import given, settings
from hypothesis import strategies as st
from trainer_support import adapted, predict, tiny_inputs

from scenes.errors import InputError
from trainer.backbones.load import load_backbone
from trainer.commands.generate import command
from trainer.control import Mode, axis_control
from trainer.control.curve import ControlCurve, parse_curve
from trainer.pipelines.controlled_wan import ControlledWan

CURVE_BFA = [[[0.4, -0.9], [-0.2, 0.1]], [[-1.0, 0.3], [1.0, 0.3]]]  # two videos of two latent frames
TIMES = st.lists(st.floats(0, 5), min_size=2, max_size=6, unique=True).map(sorted)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home with the tiny backbone in its cache and an adapter of two axes."""
    folder = tmp_path_factory.mktemp("curves")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        save_random(load_backbone("tiny-random"), folder / "two", small_config("shutter", "temperature"))
        yield folder


@pytest.fixture(scope="module")
def pipe(home: Path) -> ControlledWan:
    """A controlled pipeline of two axes."""
    loaded = ControlledWan.from_pretrained("tiny-random", home / "two")
    loaded.set_progress_bar_config(disable=True)
    return loaded


def latents(pipe: ControlledWan, **options: object) -> torch.Tensor:
    """Return the latents of a call of 9 frames."""
    small = {"height": 16, "width": 16, "num_frames": 9, "num_inference_steps": 2, "max_sequence_length": 12}
    return pipe("a ball", generator=torch.Generator().manual_seed(1), output_type="latent", **small, **options).frames


def test_the_tokens_of_a_frame_attend_to_its_own_control_alone() -> None:
    """The control attention of a block, frame by frame, is that of each frame by itself; other frames change no bit of it."""
    adapter = adapted()
    block = adapter.transformer.blocks[3].attn2
    generator = torch.Generator().manual_seed(2)
    video_BSD, text_BTD = (torch.randn(2, count, 32, generator=generator) for count in (12, 7))

    def attended(controls: torch.Tensor, video: torch.Tensor) -> torch.Tensor:
        adapter.set_frames(controls.shape[1] if controls.ndim == 3 else 1)
        context = torch.cat([adapter.embedding(controls), text_BTD], dim=1)
        return block.processor(block, video, context)

    with torch.no_grad():
        curve_BFA = torch.tensor(CURVE_BFA)
        whole_BSD = attended(curve_BFA, video_BSD)
        for frame, part in enumerate((slice(0, 6), slice(6, 12))):
            alone = attended(curve_BFA[:, frame], video_BSD[:, part])
            torch.testing.assert_close(whole_BSD[:, part], alone, atol=1e-5, rtol=1e-5)
        curve_BFA[:, 1] = 0.7
        assert torch.equal(attended(curve_BFA, video_BSD)[:, :6], whole_BSD[:, :6])
        assert not torch.allclose(attended(curve_BFA, video_BSD)[:, 6:], whole_BSD[:, 6:], atol=1e-3)


def test_the_same_control_in_every_frame_is_the_scalar_and_strength_zero_the_backbone() -> None:
    adapter = adapted()
    pair = [[0.4, -0.9], [-1.0, 0.3]]
    with torch.no_grad():
        scalar = predict(adapter.transformer, tiny_inputs(), pair)
        adapter.set_frames(2)
        torch.testing.assert_close(
            predict(adapter.transformer, tiny_inputs(), [[row, row] for row in pair]), scalar, atol=2e-5, rtol=1e-5
        )
        assert not torch.allclose(predict(adapter.transformer, tiny_inputs(), CURVE_BFA), scalar, atol=1e-3)
        for mode in Mode:
            adapter.set_mode(mode, strength=0.0)
            bare = predict(adapter.transformer, tiny_inputs(), CURVE_BFA)
            adapter.set_frames(1)
            assert torch.equal(predict(adapter.transformer, tiny_inputs(), pair), bare)
            adapter.set_frames(2)


def test_gradients_of_curves_are_the_same_with_and_without_checkpointing() -> None:
    found = []
    for checkpointing in (False, True):
        adapter = copy.deepcopy(adapted())
        if checkpointing:
            adapter.transformer.train()
            adapter.transformer.enable_gradient_checkpointing()
        adapter.set_frames(2)
        predict(adapter.transformer, tiny_inputs(), CURVE_BFA).square().mean().backward()
        found.append({name: parameter.grad for name, parameter in adapter.control_parameters().items()})
    plain, checkpointed = found
    assert all(gradient.abs().max() > 0 for gradient in plain.values())
    assert all(torch.equal(gradient, checkpointed[name]) for name, gradient in plain.items())


@settings(max_examples=60, deadline=None)
@given(TIMES, st.data())
def test_a_curve_is_linear_between_its_knots(times_s: list[float], data: st.DataObject) -> None:
    controls = data.draw(st.lists(st.floats(-2, 2), min_size=len(times_s), max_size=len(times_s)))
    curve = ControlCurve(tuple(zip(times_s, controls, strict=True)))
    frames, fps = 81, 16.0
    at_T = curve.frame_controls(frames, fps)
    for time_s, control in zip(np.arange(frames) / fps, at_T, strict=True):
        before = max((knot for knot in curve.knots if knot[0] <= time_s), default=curve.knots[0])
        after = min((knot for knot in curve.knots if knot[0] >= time_s), default=curve.knots[-1])
        share = 0.0 if after[0] <= before[0] else (time_s - before[0]) / (after[0] - before[0])
        assert control == pytest.approx(before[1] + share * (after[1] - before[1]), abs=1e-6)
    latent_F = curve.latent_controls(frames, fps, 4)
    assert len(latent_F) == 21 and latent_F[0] == at_T[0] and latent_F[20] == pytest.approx(at_T[77:].mean())


def test_a_constant_curve_is_the_scalar_bit_for_bit_and_the_next_call_is_free_of_it(pipe: ControlledWan) -> None:
    plain = latents(pipe, temperature="3000K", shutter="1/50")
    assert torch.equal(latents(pipe, temperature="3000K@0s 3000K@0.5s", shutter="1/50"), plain)
    moving = latents(pipe, temperature="3000K@0s 9000K@0.5s", shutter="1/50")
    assert moving.shape == plain.shape and not torch.equal(moving, plain)
    controls = pipe.controls(1, {"temperature": "3000K@0s 9000K@0.5s"}, {"shutter": 0.25}, num_frames=9, fps=16)
    assert controls.shape == (1, 3, 2) and (controls[0, :, 0] == 0.25).all()
    temperature = axis_control("temperature")
    assert controls[0, 0, 1].item() == pytest.approx(temperature.control("3000K"), abs=1e-6)
    assert torch.equal(latents(pipe, temperature="3000K", shutter="1/50"), plain)  # the curve's state is gone
    backwards = latents(pipe, temperature=["9000K@0s 3000K@0.5s"], shutter="1/50", control_guidance=1.5)
    assert not torch.equal(backwards, moving)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("3000K@0s", "a curve of 1 knots"),
        ("3000K@0s 9000K", "is no curve of temperature; write"),
        ("3000K@0.2s 9000K@0.1s", "knot at 0.1 s follows one at 0.2 s"),
        ("3000K@0s 9000K@0s", "follows one at 0 s"),
        ("3000K@-1s 9000K@0s", "give finite controls at times of 0 s or later"),
        ("3000K@x 9000K@1s", "'x' in a curve of temperature is no time"),
        ("3000K@0s f/2@0.5s", "'f/2'"),
        ("3000K@0s 9000K@4s", r"a knot at 4 s and the video ends after 0.5625 s \(9 frames at 16 fps\)"),
    ],
)
def test_bad_curves_are_refused(pipe: ControlledWan, written: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        latents(pipe, temperature=written)
    assert all(adapter.frames == 1 for adapter in pipe.adapters.values())


def test_curves_of_another_shape_are_refused_by_the_backbone() -> None:
    adapter = adapted()
    with pytest.raises(InputError, match=r"shape \[2, 2, 2\] do not fit a batch of 2 videos and 2 axes"):
        predict(adapter.transformer, tiny_inputs(), CURVE_BFA)
    adapter.set_frames(3)
    with pytest.raises(InputError, match="set to controls of 3 latent frames and the video has 2"):
        predict(adapter.transformer, tiny_inputs(), CURVE_BFA)
    adapter.set_frames(2)
    with pytest.raises(InputError, match=r"of 2 latent frames and 2 axes; give \[2, 2, 2\]"):
        predict(adapter.transformer, tiny_inputs(), [[0.1, 0.2]])


def test_values_with_spaces_and_lists_of_curves_are_read() -> None:
    shutter = axis_control("shutter")
    curve = parse_curve("1/400 s@0s  1/16 s@0.25", shutter.control, "shutter")
    assert [time_s for time_s, _ in curve.knots] == [0.0, 0.25]
    assert [control for _, control in curve.knots] == pytest.approx([-1.0, 1.0])


def test_generate_takes_curves_beside_values(home: Path, tmp_path: Path) -> None:
    words = ["--adapter", home / "two", "--out", tmp_path / "out", "--prompt", "a red ball", *SMALL]
    curve = "3000K@0s 9000K@0.2s"
    dry = json.loads(output(command, *words, "--temperature", f"6500K,{curve}", "--dry-run", "--json"))
    assert [video["labels"] for video in dry["videos"]] == [["6500 K"], ["3000 K → 9000 K"]]
    report = json.loads(output(command, *words, "--temperature", f"6500K,{curve}", "--json"))
    assert report["made"] == 2
    entries = json.loads((tmp_path / "out" / "index.json").read_text())["videos"]
    knots = entries[1]["controls"]["temperature"]
    assert [time_s for time_s, _ in knots] == [0.0, 0.2] and knots[0][1] > 0 > knots[1][1]
    assert np.allclose(entries[1]["values"]["temperature"], [[0.0, 3000.0], [0.2, 9000.0]])
    assert "3000 K → 9000 K" in (tmp_path / "out" / "sweep.html").read_text()
    assert json.loads(output(command, *words, "--temperature", f"6500K,{curve}", "--json"))["found"] == 2
    refused = run(command, *words, "--temperature", "3000K@0s 9000K@5s", "--dry-run")
    assert isinstance(refused.exception, InputError) and "the video ends after" in str(refused.exception)
