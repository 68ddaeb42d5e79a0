"""`ControlledWan`: units in, videos out, both guidance passes under control, diffusers' own features intact.

Shapes: N videos, A axes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import cpu_offload
from diffusers import FlowMatchEulerDiscreteScheduler, WanPipeline
from trainer_support import scramble

from scenes.errors import InputError
from trainer.adapters.folder import save_adapter
from trainer.backbones.load import load_backbone
from trainer.control import AdapterConfig, ControlConfig, LoraSettings, NoLaw, attach, axis_control
from trainer.pipelines.controlled_wan import ControlledWan

SMALL = {
    "height": 16,
    "width": 16,
    "num_frames": 5,
    "num_inference_steps": 2,
    "max_sequence_length": 12,
    "output_type": "latent",
}


def config(*axes: str) -> AdapterConfig:
    """Return a small adapter's configuration for the tiny backbone."""
    control = ControlConfig(axes=tuple(axis_control(name) for name in axes), blocks=(4, 5), rank=4, alpha=4, embed_dim=16)
    return AdapterConfig(control=control, lora=LoraSettings(rank=2, alpha=2))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny backbone and an adapter of two axes trained on it, so to say."""
    folder = tmp_path_factory.mktemp("pipeline")
    pipe = load_backbone("tiny-random", cache=folder)
    for name, axes in (("two", ("shutter", "temperature")), ("one", ("shutter",))):
        adapter = scramble(attach(pipe.transformer, config(*axes)))
        save_adapter(folder / name, {"transformer": adapter}, backbone_id="tiny-random", step=1)
        adapter.detach()
    return folder


@pytest.fixture
def pipe(cache: Path) -> ControlledWan:
    """A fresh controlled pipeline of two axes."""
    return quiet(ControlledWan.from_pretrained("tiny-random", cache / "two", cache=cache))


def quiet(pipe: WanPipeline) -> WanPipeline:
    """Switch the progress bar off."""
    pipe.set_progress_bar_config(disable=True)
    return pipe


def latents(
    pipe: WanPipeline, prompt: str | list[str] = "a red ball", seeds: tuple[int, ...] = (0,), **options: object
) -> torch.Tensor:
    """Return the latents of a call."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return pipe(prompt, generator=generators if len(seeds) > 1 else generators[0], **(SMALL | options)).frames


def test_it_is_a_wan_pipeline_and_says_what_it_controls(pipe: ControlledWan) -> None:
    assert isinstance(pipe, WanPipeline) and pipe.card.backbone.id == "tiny-random"
    assert [axis.name for axis in pipe.axes] == ["shutter", "temperature"]
    frames = pipe("a red ball", shutter="1/50", **(SMALL | {"output_type": "np"})).frames
    assert frames.shape == (1, 5, 16, 16, 3) and np.isfinite(frames).all()


def test_zero_strength_and_backbone_only_are_the_plain_pipeline(pipe: ControlledWan, cache: Path) -> None:
    plain = latents(quiet(load_backbone("tiny-random", cache=cache)))
    assert torch.equal(latents(pipe, shutter="1/50", strength=0.0), plain)
    assert torch.equal(latents(pipe, shutter="1/50", mode="backbone_only"), plain)
    assert not torch.equal(latents(pipe, shutter="1/50"), plain)


def test_units_and_controls_say_the_same(pipe: ControlledWan) -> None:
    in_units = latents(pipe, shutter="1/400", temperature="2000K")
    assert torch.equal(in_units, latents(pipe, shutter=1 / 400, temperature=2000.0))
    torch.testing.assert_close(in_units, latents(pipe, control={"shutter": -1.0, "temperature": 1.0}), atol=1e-5, rtol=0)
    assert not torch.equal(in_units, latents(pipe, shutter="1/80", temperature="2000K"))


def test_an_axis_without_a_value_is_neutral(pipe: ControlledWan) -> None:
    torch.testing.assert_close(latents(pipe), latents(pipe, shutter="1/80", temperature="6500K"), atol=1e-6, rtol=0)


def test_both_guidance_passes_see_the_control(pipe: ControlledWan) -> None:
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def record(_module: torch.nn.Module, args: tuple, _output: object) -> None:
        seen.append((args[0].clone(), torch.tensor(0)))

    pipe.adapters["transformer"].embedding.register_forward_hook(record)
    latents(pipe, shutter="1/50", guidance_scale=4.0, num_inference_steps=3)
    assert len(seen) == 6
    expected = pipe.controls(1, {"shutter": "1/50"})
    assert all(torch.equal(controls, expected) for controls, _ in seen)


def test_control_guidance_shows_less_of_the_control_to_the_unconditional_pass(pipe: ControlledWan) -> None:
    seen: list[torch.Tensor] = []
    hook = pipe.adapters["transformer"].embedding.register_forward_hook(
        lambda _module, args, _made: seen.append(args[0].clone())
    )
    pushed = latents(pipe, shutter="1/50", guidance_scale=4.0, control_guidance=2.5, num_inference_steps=3)
    hook.remove()
    expected = pipe.controls(1, {"shutter": "1/50"})
    for named, unnamed in zip(seen[::2], seen[1::2], strict=True):
        assert torch.equal(named, expected)
        torch.testing.assert_close(unnamed, expected * (4.0 - 2.5) / (4.0 - 1.0))
    plain = latents(pipe, shutter="1/50", guidance_scale=4.0, num_inference_steps=3)
    assert not torch.equal(pushed, plain)  # and nothing of the earlier call stays
    assert torch.equal(plain, latents(pipe, shutter="1/50", guidance_scale=4.0, control_guidance=1.0, num_inference_steps=3))
    neutral = latents(pipe, guidance_scale=4.0, num_inference_steps=3)
    assert torch.equal(neutral, latents(pipe, guidance_scale=4.0, control_guidance=2.5, num_inference_steps=3))


def test_a_full_control_guidance_is_the_bare_unconditional_pass(pipe: ControlledWan) -> None:
    """One step from the same noise: n(c) - n(c) cancels where the texts are alike, and what c does enters g times."""
    once = {"num_inference_steps": 1, "guidance_scale": 3.0, "negative_prompt": "a red ball"}
    single, bare = (latents(pipe, shutter=value, num_inference_steps=1, guidance_scale=1.0) for value in ("1/20", "1/80"))
    torch.testing.assert_close(latents(pipe, shutter="1/20", **once), single, atol=1e-4, rtol=1e-4)
    pushed = latents(pipe, shutter="1/20", control_guidance=3.0, **once)
    torch.testing.assert_close(pushed - bare, 3 * (single - bare), atol=1e-4, rtol=1e-3)
    assert not torch.allclose(single, bare, atol=1e-4)


@pytest.mark.parametrize(
    ("guidance", "push", "message"),
    [(1.0, 2.0, "needs the unconditional pass"), (4.0, -1.0, "-1 cannot be"), (4.0, float("nan"), "nan cannot be")],
)
def test_control_guidance_that_cannot_be(pipe: ControlledWan, guidance: float, push: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        latents(pipe, shutter="1/50", guidance_scale=guidance, control_guidance=push)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"mode": "backbone_only"}, "in mode backbone_only no control acts"),
        ({"strength": 0.0}, "at strength 0 no control acts"),
    ],
)
def test_control_guidance_needs_a_control_that_acts(pipe: ControlledWan, more: dict, message: str) -> None:
    with pytest.raises(InputError, match=f"control guidance 2 has nothing to push towards: {message}"):
        latents(pipe, shutter="1/50", guidance_scale=4.0, control_guidance=2.0, **more)


def test_the_unconditional_pass_depends_on_the_control(pipe: ControlledWan) -> None:
    """With a guidance of 2 and the same text in both passes, the result is the conditional pass alone: 2c - c = c."""
    guided = latents(pipe, shutter="1/20", guidance_scale=2.0, negative_prompt="a red ball")
    single = latents(pipe, shutter="1/20", guidance_scale=1.0)
    torch.testing.assert_close(guided, single, atol=1e-4, rtol=1e-4)


def test_a_batch_of_mixed_controls_equals_the_single_runs(pipe: ControlledWan) -> None:
    prompts, shutters, seeds = ["a red ball", "a blue box", "a car"], ["1/400", "1/80", "1/16"], (3, 4, 5)
    together = latents(pipe, prompts, seeds, shutter=shutters, temperature="3000K", guidance_scale=3.0)
    for row, (prompt, shutter, seed) in enumerate(zip(prompts, shutters, seeds, strict=True)):
        alone = latents(pipe, prompt, (seed,), shutter=shutter, temperature="3000K", guidance_scale=3.0)
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-4, rtol=1e-3)


def test_several_videos_of_a_prompt_keep_its_control(pipe: ControlledWan) -> None:
    twice = latents(pipe, ["a car", "a ball"], (1, 2, 3, 4), shutter=["1/400", "1/16"], num_videos_per_prompt=2)
    for row, (prompt, shutter) in enumerate([("a car", "1/400"), ("a car", "1/400"), ("a ball", "1/16"), ("a ball", "1/16")]):
        alone = latents(pipe, prompt, (row + 1,), shutter=shutter)
        torch.testing.assert_close(twice[row : row + 1], alone, atol=1e-4, rtol=1e-3)


def test_embeddings_instead_of_prompts(pipe: ControlledWan) -> None:
    with torch.no_grad():
        embeds, _ = pipe.encode_prompt(["a car", "a ball"], do_classifier_free_guidance=False, max_sequence_length=12)
    given = pipe(
        prompt_embeds=embeds,
        shutter=["1/400", "1/16"],
        guidance_scale=1.0,
        generator=[torch.Generator().manual_seed(s) for s in (1, 2)],
        **SMALL,
    ).frames
    written = latents(pipe, ["a car", "a ball"], (1, 2), shutter=["1/400", "1/16"], guidance_scale=1.0)
    assert torch.equal(given, written)


def test_schedulers_callbacks_and_attention_kwargs_work_as_documented(pipe: ControlledWan) -> None:
    pipe.scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    steps: list[int] = []

    def note(_pipe: WanPipeline, step: int, _timestep: torch.Tensor, values: dict) -> dict:
        steps.append(step)
        return values

    assert latents(pipe, shutter="1/50", callback_on_step_end=note, attention_kwargs={"scale": 1.0}).isfinite().all()
    assert steps == [0, 1]


def test_a_bfloat16_pipeline(cache: Path) -> None:
    pipe = quiet(ControlledWan.from_pretrained("tiny-random", cache / "two", cache=cache, dtype=torch.bfloat16))
    assert (
        pipe.transformer.dtype == torch.bfloat16 and pipe.adapters["transformer"].embedding.lin1.weight.dtype == torch.float32
    )
    assert latents(pipe, shutter="1/50").isfinite().all()
    plain = quiet(load_backbone("tiny-random", cache=cache, dtype=torch.bfloat16))
    assert torch.equal(latents(pipe, shutter="1/50", strength=0.0), latents(plain))


def test_two_experts_both_see_the_control(cache: Path) -> None:
    high, low = load_backbone("tiny-random", cache=cache), load_backbone("tiny-random:1", cache=cache)
    parts = high.components | {"transformer_2": low.transformer}
    both = quiet(WanPipeline(**parts, boundary_ratio=0.875))
    plain = latents(both, num_inference_steps=4)
    adapters = {name: scramble(attach(parts[name], config("shutter"))) for name in ("transformer", "transformer_2")}
    controlled = quiet(ControlledWan.around(both, adapters))
    seen = dict.fromkeys(adapters, 0)

    def count(name: str) -> None:
        adapters[name].embedding.register_forward_hook(lambda *_: seen.__setitem__(name, seen[name] + 1))

    for name in adapters:
        count(name)
    assert not torch.equal(latents(controlled, shutter="1/50", num_inference_steps=4), plain)
    assert min(seen.values()) > 0 and sum(seen.values()) == 8
    assert torch.equal(latents(controlled, shutter="1/50", num_inference_steps=4, strength=0.0), plain)


def test_an_adapted_expert_beside_a_bare_one(cache: Path) -> None:
    high, low = load_backbone("tiny-random", cache=cache), load_backbone("tiny-random:1", cache=cache)
    both = WanPipeline(**(high.components | {"transformer_2": low.transformer}), boundary_ratio=0.875)
    controlled = quiet(ControlledWan.around(both, {"transformer_2": scramble(attach(low.transformer, config("shutter")))}))
    slow, fast = (latents(controlled, shutter=s, num_inference_steps=4) for s in ("1/16", "1/400"))
    assert not torch.equal(slow, fast)
    with pytest.raises(InputError, match="needs the unconditional pass"):  # the first expert's decides
        latents(controlled, shutter="1/16", control_guidance=2.0, guidance_scale=1.0, guidance_scale_2=4.0)


def test_the_adapter_of_another_backbone_is_refused(cache: Path) -> None:
    with pytest.raises(InputError, match="is another one"):
        ControlledWan.from_pretrained("tiny-random:1", cache / "two", cache=cache)
    allowed = ControlledWan.from_pretrained("tiny-random:1", cache / "two", cache=cache, allow_other_backbone=True)
    assert latents(quiet(allowed), shutter="1/50").isfinite().all()
    with pytest.raises(InputError, match="does not exist"):
        ControlledWan.from_pretrained("tiny-random", cache / "none", cache=cache)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"aperture": "f/2"}, "does not control 'aperture'; it controls shutter, temperature"),
        ({"control": {"zoom": 1.0}}, "does not control 'zoom'"),
        ({"control": 0.5}, "given without an axis and this adapter controls shutter, temperature; name the axis"),
        ({"shutter": "1/50", "control": {"shutter": 0.1}}, "shutter was given in units and as a control"),
        ({"shutter": ["1/50", "1/60"]}, "2 values of shutter for 1 prompts"),
        ({"shutter": "fast"}, "exposure 'fast'"),
        ({"shutter": "1/2", "limit": 1.5}, r"shutter: 0.5s is control 2.29, beyond the limit 1.5"),
        ({"control": {"shutter": float("nan")}}, "control nan of shutter"),
        ({"control": {"shutter": True}}, "shutter True is no value"),
        ({"shutter": np.True_}, "shutter .*True.* is no value"),
        ({"shutter": [True]}, "shutter True is no value; give a number in its unit"),
        ({"mode": "decoupledd"}, "mode 'decoupledd' is unknown"),
    ],
)
def test_wrong_values_are_refused(pipe: ControlledWan, values: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        latents(pipe, **values)


@pytest.mark.parametrize("half", [np.float32(0.5), np.array(0.5), torch.tensor(0.5), np.array([0.5]), torch.tensor([0.5])])
def test_numpys_and_torchs_numbers_are_controls(pipe: ControlledWan, half: object) -> None:
    assert torch.equal(pipe.controls(1, {}, {"shutter": half}), torch.tensor([[0.5, 0.0]]))
    kelvins = pipe.controls(1, {"temperature": half * 8000})
    assert torch.equal(kelvins, pipe.controls(1, {"temperature": 4000.0}))


def test_the_text_is_as_long_as_in_training(cache: Path) -> None:
    """Python pads texts to the adapter's own length, as the command does: other padding is another picture."""
    pipe = quiet(ControlledWan.from_pretrained("tiny-random", cache / "one", cache=cache))
    own = {name: value for name, value in SMALL.items() if name != "max_sequence_length"}
    pipe.card = pipe.card.model_copy(update={"recipe": {"backbone": {"text_max_length": 7}}})

    def made(**more: object) -> torch.Tensor:
        return pipe("a ball", shutter="1/50", generator=torch.Generator().manual_seed(0), **own, **more).frames

    assert torch.equal(made(), made(max_sequence_length=7)) and not torch.equal(made(), made(max_sequence_length=12))


def test_controls_beyond_the_trained_range_are_extrapolation(pipe: ControlledWan) -> None:
    assert pipe.controls(1, {"shutter": "1/2"})[0, 0] == pytest.approx(np.log(40) / np.log(5))


def test_the_only_axis_needs_no_name(cache: Path) -> None:
    pipe = quiet(ControlledWan.from_pretrained("tiny-random", cache / "one", cache=cache))
    assert torch.equal(latents(pipe, control=1.0), latents(pipe, control={"shutter": 1.0}))
    torch.testing.assert_close(pipe.controls(2, {}, [0.5, -0.5]), torch.tensor([[0.5], [-0.5]]))


def test_a_control_without_units_is_given_as_it_is(cache: Path) -> None:
    base = load_backbone("tiny-random", cache=cache)
    one = config("aperture")
    axis = one.control.axes[0].model_copy(update={"law": NoLaw()})
    one = one.model_copy(update={"control": one.control.model_copy(update={"axes": (axis,)})})
    pipe = quiet(ControlledWan.around(base, {"transformer": scramble(attach(base.transformer, one))}))
    assert latents(pipe, control=-0.5).isfinite().all()
    with pytest.raises(InputError, match="states no unit law"):
        latents(pipe, aperture="f/2")


@pytest.mark.parametrize("buffers", [False, True])
@pytest.mark.parametrize("gate", ["fixed", "learned"])
def test_sequential_offload_reaches_the_control_path(cache: Path, gate: str, buffers: bool) -> None:
    """Offloading keeps weights elsewhere and brings them module by module through hooks on `forward`."""
    base = load_backbone("tiny-random", cache=cache)
    one = config("shutter")
    one = one.model_copy(update={"control": one.control.model_copy(update={"gate": gate})})
    pipe = quiet(ControlledWan.around(base, {"transformer": scramble(attach(base.transformer, one))}))
    expected = {strength: latents(pipe, shutter="1/50", strength=strength) for strength in (1.0, 0.5, 0.0)}
    cpu_offload(pipe.transformer, execution_device=torch.device("cpu"), offload_buffers=buffers)
    assert pipe.adapters["transformer"].embedding.lin1.weight.device.type == "meta"
    for strength, frames in expected.items():
        assert torch.equal(latents(pipe, shutter="1/50", strength=strength), frames)
