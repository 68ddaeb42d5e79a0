"""Feature extractors on real small models, and the fast evaluation on a tiny backbone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from trainer_support import scramble, tiny_config

from scenes.errors import InputError
from trainer.backbones.load import load_backbone
from trainer.backbones.tiny_random import build_tokenizer, tiny_random
from trainer.control import attach
from trainer.evaluation.features.extractors import BackboneFeatures, ClipFeatures, XClipFeatures, stacked
from trainer.evaluation.features.fep import compare, one_step
from trainer.generation.sampler import Sampling
from trainer.pipelines.controlled_wan import ControlledWan

SMALL = Sampling(width=32, height=32, frames=5, steps=1, guidance=1.0, text_tokens=16)
TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
PICTURES = {"image_size": 32, "patch_size": 8}


@pytest.fixture(scope="module")
def words() -> dict[str, int]:
    size = len(build_tokenizer())
    return {"vocab_size": size, "eos_token_id": 1, "bos_token_id": 0, "pad_token_id": 0}


def save(model: torch.nn.Module, folder: Path) -> str:
    from transformers import CLIPImageProcessor

    model.save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory, words: dict[str, int]) -> ClipFeatures:
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(text_config={**TOWER, **words}, vision_config={**TOWER, **PICTURES}, projection_dim=16))
    return ClipFeatures(save(model, tmp_path_factory.mktemp("clip")))


@pytest.fixture(scope="module")
def xclip(tmp_path_factory: pytest.TempPathFactory, words: dict[str, int]) -> XClipFeatures:
    from transformers import XCLIPConfig, XCLIPModel

    torch.manual_seed(0)
    mit = {"mit_hidden_size": 16, "mit_intermediate_size": 32, "mit_num_hidden_layers": 1, "mit_num_attention_heads": 2}
    config = XCLIPConfig(
        text_config={**TOWER, **words},
        vision_config={**TOWER, **PICTURES, **mit, "num_frames": 8},
        projection_dim=16,
        prompt_num_attention_heads=2,
        prompt_layers=1,
    )
    return XClipFeatures(save(XCLIPModel(config), tmp_path_factory.mktemp("xclip")))


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> ControlledWan:
    folder = tiny_random(tmp_path_factory.mktemp("tiny"))
    loaded = load_backbone(str(folder))
    adapter = attach(loaded.transformer, tiny_config("shutter", blocks=(2, 3)), dtype=torch.float32)
    return ControlledWan.around(loaded, {"transformer": scramble(adapter)})


def video(seed: int, frames: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, 32, 32, 3), dtype=np.uint8)


def test_clip_averages_its_frames(clip: ClipFeatures) -> None:
    frames_THW3 = video(0)
    singles = np.mean([clip.video(frames_THW3[i : i + 1]) for i in range(len(frames_THW3))], axis=0)
    np.testing.assert_allclose(clip.video(frames_THW3), singles, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(clip.video(frames_THW3), clip.video(frames_THW3[::-1]), rtol=1e-4, atol=1e-5)


def test_x_clip_sees_the_order_of_frames(xclip: XClipFeatures) -> None:
    frames_THW3 = video(0, 9)
    assert xclip.video(frames_THW3).shape == (16,)
    assert not np.allclose(xclip.video(frames_THW3), xclip.video(frames_THW3[::-1]), rtol=1e-3)


def test_features_of_texts_and_videos_can_be_compared(clip: ClipFeatures, xclip: XClipFeatures) -> None:
    for features in (clip, xclip):
        texts = [features.text(words) for words in ("a red cube", "a cone")]
        scores = [features.video(video(seed)) @ text_D for seed in range(3) for text_D in texts]
        assert len({round(float(score), 9) for score in scores}) == len(scores)


def test_what_cannot_be_loaded_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match="--features tiny"):
        ClipFeatures(str(tmp_path))


def test_backbone_features_ignore_the_adapter_and_repeat(pipe: ControlledWan) -> None:
    features = BackboneFeatures(pipe)
    seen = []
    for mode in ("backbone_only", "joint", "backbone_only"):
        for adapter in pipe.adapters.values():
            adapter.set_mode(mode)
        seen.append(features.video(video(1)))
        assert all(adapter.mode == mode for adapter in pipe.adapters.values())
    np.testing.assert_array_equal(seen[0], seen[1])
    np.testing.assert_array_equal(seen[0], seen[2])
    assert not np.allclose(seen[0], features.video(video(2)))


def test_one_step_at_zero_strength_is_the_backbone_and_the_control_acts(pipe: ControlledWan) -> None:
    bare = one_step(pipe, "a red cube", [0.8], mode="backbone_only", seed=3, sampling=SMALL)
    assert bare.shape == (5, 32, 32, 3)
    np.testing.assert_array_equal(bare, one_step(pipe, "a red cube", [-0.8], mode="backbone_only", seed=3, sampling=SMALL))
    strong = one_step(pipe, "a red cube", [0.8], mode="joint", seed=3, sampling=SMALL)
    weak = one_step(pipe, "a red cube", [-0.8], mode="joint", seed=3, sampling=SMALL)
    assert not np.array_equal(strong, bare)
    assert not np.array_equal(strong, weak)


def test_the_fast_scores_say_none_for_the_backbone_and_much_for_a_wild_adapter(pipe: ControlledWan) -> None:
    prompts = [f"a {word} cube" for word in ("red", "blue", "green", "white", "yellow", "small", "slow", "fast")]
    controls_NA = [[0.0]] * len(prompts)

    def seen(mode: str) -> np.ndarray:
        own = BackboneFeatures(pipe)
        rows = enumerate(zip(prompts, controls_NA, strict=True))
        videos = [one_step(pipe, words, controls_A, mode=mode, seed=n, sampling=SMALL) for n, (words, controls_A) in rows]
        return np.stack([own.video(frames_THW3) for frames_THW3 in videos])

    bare, joint = seen("backbone_only"), seen("joint")
    features = BackboneFeatures(pipe)
    same, wild = compare(bare, bare, features), compare(joint, bare, features)
    assert same.ssf == pytest.approx(1.0)
    assert same.ss_fd == pytest.approx(0.0, abs=1e-6)
    assert same.dvs == pytest.approx(1.0)
    assert wild.ssf < same.ssf
    assert wild.ss_fd > same.ss_fd
    assert wild.extractor == features.name
    singles = [one_step(pipe, p, [0.0], mode="joint", seed=n, sampling=SMALL) for n, p in enumerate(prompts)]
    np.testing.assert_allclose(stacked(features, singles), joint, rtol=1e-5)
