"""The linear code that the bundled autoencoder is taught first, and the optimizers that teach it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from trainer.tiny.export import decoder_folder
from trainer.tiny.shared.batched_muon import Muon
from trainer.tiny.shared.config import Optimizing, read_settings
from trainer.tiny.shared.muon import HybridOptimizer
from trainer.tiny.vae.linear_code import LinearCode, fit_linear_code

SPACE, TIME = 4, 2
WIDTH = 3 * SPACE * SPACE * TIME


def ramps(count: int, frames: int = 5, side: int = 16) -> Tensor:
    """Return videos [B, 3, T, H, W] of moving coloured ramps: few components hold nearly all of them."""
    generator = torch.Generator().manual_seed(count)
    slope, drift, color = (torch.rand(count, 3, 1, 1, 1, generator=generator) * 2 - 1 for _ in range(3))
    place = torch.linspace(-1, 1, side)
    clock = torch.linspace(-1, 1, frames).view(1, 1, frames, 1, 1)
    return (slope * place.view(1, 1, 1, 1, side) + color * place.view(1, 1, 1, side, 1) + drift * clock) / 3


def lost(code: LinearCode, video: Tensor) -> float:
    """Return the mean squared error of a video through a code."""
    return float((code.decode(code.encode(video)) - video).square().mean())


def test_a_code_of_all_components_loses_nothing_and_latents_lie_where_the_blocks_are() -> None:
    video = torch.rand(20, 3, 5, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    code = fit_linear_code(video, WIDTH, SPACE, TIME)
    latents = code.encode(video)
    assert latents.shape == (20, WIDTH, 3, 4, 4)
    assert lost(code, video) < 1e-6
    changed = video.clone()
    changed[:, :, 3, 5, 9] += 1  # frame 3 is of the third latent in time, row 5 of the second in height, column 9 of the third
    moved = (code.encode(changed) - latents).abs().amax(dim=(0, 1)) > 1e-4
    assert moved.nonzero().tolist() == [[2, 1, 2]]


def test_components_come_by_what_they_hold_and_are_white() -> None:
    code = fit_linear_code(ramps(200), 12, SPACE, TIME)
    assert (code.std_C.diff() <= 1e-6).all()
    flat = code.encode(ramps(200)).transpose(0, 1).flatten(1)
    torch.testing.assert_close(flat[:6].std(1), torch.ones(6), atol=2e-2, rtol=0)
    errors = [lost(fit_linear_code(ramps(200), channels, SPACE, TIME), ramps(50)) for channels in (1, 3, 6, 12)]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 1e-3 < errors[0]


def convolution(memory: torch.memory_format) -> nn.Module:
    torch.manual_seed(0)
    layers = nn.ModuleDict({"inner": nn.Conv2d(6, 4, 3), "norm_gain": nn.Linear(5, 5), "one": nn.Linear(7, 1)})
    return layers.to(memory_format=memory)  # type: ignore[call-overload,no-any-return]


def after(memory: torch.memory_format, settings: Optimizing, share: float = 1.0) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the parameters before and after one step on the same gradients."""
    module = convolution(memory)
    parameters = dict(module.named_parameters())
    before = {name: value.detach().clone() for name, value in parameters.items()}
    descent = HybridOptimizer(parameters, settings)
    for name, value in parameters.items():
        value.grad = torch.randn(value.shape, generator=torch.Generator().manual_seed(len(name)))
    for group in descent.param_groups:
        group["lr"] *= share
    descent.step()
    descent.zero_grad()
    assert all(value.grad is None for value in parameters.values())
    return before, {name: value.detach().clone() for name, value in parameters.items()}


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_muon_moves_convolutions_by_orthogonal_steps_and_adamw_the_rest(memory: torch.memory_format) -> None:
    settings = Optimizing(rate=1e-3, matrix_rate=0.1, plain="norm", weight_decay=0.0)
    before, now = after(memory, settings)
    step = (now["inner.weight"] - before["inner.weight"]).flatten(1) / 0.1
    sizes = torch.linalg.svdvals(step)
    assert sizes.shape == (4,) and sizes.min() > 0.6 and sizes.max() < 1.3  # Newton and Schulz' steps stop near 1
    for name in ("inner.bias", "norm_gain.weight", "norm_gain.bias", "one.weight", "one.bias"):
        torch.testing.assert_close((now[name] - before[name]).abs(), torch.full_like(now[name], 1e-3), atol=1e-5, rtol=0)


def test_matrices_turned_at_once_make_torchs_steps() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(6, 4), (3, 5), (6, 4)]
    mine, theirs = ([torch.nn.Parameter(torch.ones(shape)) for shape in shapes] for _ in range(2))
    batched, one_by_one = Muon(mine, lr=0.1), torch.optim.Muon(theirs, lr=0.1, weight_decay=0.0, adjust_lr_fn="original")
    for _ in range(3):
        for a, b in zip(mine, theirs, strict=True):
            a.grad = torch.randn(a.shape, generator=generator)
            b.grad = a.grad.clone()
        batched.step()
        one_by_one.step()
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-2, rtol=0)  # theirs are of bfloat16


def test_the_order_in_memory_changes_no_step() -> None:
    settings = Optimizing(rate=1e-3, matrix_rate=0.1)
    plain, other = (after(memory, settings)[1]["inner.weight"] for memory in (torch.contiguous_format, torch.channels_last))
    torch.testing.assert_close(plain, other, atol=2e-3, rtol=0)


def test_both_follow_the_schedule_and_muon_can_be_left_out() -> None:
    before, now = after(torch.contiguous_format, Optimizing(rate=1e-3, matrix_rate=0.1, weight_decay=0.0), share=0.1)
    assert torch.linalg.svdvals((now["inner.weight"] - before["inner.weight"]).flatten(1)).max() < 0.013
    before, now = after(torch.contiguous_format, Optimizing(rate=1e-3, matrix_rate=0, weight_decay=0.0))
    torch.testing.assert_close(
        (now["inner.weight"] - before["inner.weight"]).abs(), torch.full((4, 6, 3, 3), 1e-3), atol=1e-5, rtol=0
    )


def test_what_earlier_versions_called_the_decoder_stage_is_read(tmp_path: Path) -> None:
    former, present = tmp_path / "former.toml", tmp_path / "present.toml"
    former.write_text("[polish]\nnoise = 0.5\n")
    present.write_text("[decoder]\nnoise = 0.5\n")
    assert read_settings(former) == read_settings(present) != read_settings(None)
    assert decoder_folder(tmp_path) == tmp_path / "decoder"
    (tmp_path / "polish").mkdir()
    assert decoder_folder(tmp_path) == tmp_path / "polish"
