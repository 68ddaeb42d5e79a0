"""A backbone as a pipeline without weights: what a dry run checks and reckons with.

The known Wan backbones come from the table of this package, offline and at once; of any other only the configuration files are
read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
from transformers import UMT5Config, UMT5EncoderModel

from trainer.backbones.backbone_files import check_sizes
from trainer.backbones.hub import repository
from trainer.backbones.load import EXPERTS, one_line
from trainer.backbones.locate import locate_backbone, pinned_revision
from trainer.backbones.wan_configs import UMT5_XXL, WanConfig, known_config, meta_vae, random_transformer


def weightless_pipeline(name: str, *, cache: Path | None = None) -> WanPipeline:
    """Return the pipeline of a backbone with every weight on the meta device, and without a tokenizer.

    Raises InputError as `trainer.backbones.load.load_backbone` does for a backbone that cannot be found or described.
    """
    config = known_config(repository(name))
    if config is not None:
        return _known(config)
    location = locate_backbone(name, cache=cache)
    if Path(location).is_dir():
        check_sizes(Path(location), name)
    with one_line(f"backbone {name}"):
        return _described(location, **pinned_revision(name))


def _known(config: WanConfig) -> WanPipeline:
    with torch.device("meta"):
        text = UMT5EncoderModel(UMT5Config(**UMT5_XXL))
    return WanPipeline(
        tokenizer=None,
        text_encoder=text,
        vae=meta_vae(config),
        scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True),
        **{name: random_transformer(config) for name in config.experts},
        boundary_ratio=config.boundary_ratio,
        expand_timesteps=config.expand_timesteps,
    )


def _described(location: str, **options: str) -> WanPipeline:
    """Return the pipeline that the configuration files of a folder, or of a hub id (`options`: its revision), describe."""
    index: dict[str, Any] = dict(WanPipeline.load_config(location, **options))
    present = [name for name in EXPERTS if (index.get(name) or [None])[0] is not None]
    scheduler = getattr(diffusers, index["scheduler"][1])
    with torch.device("meta"):
        parts: dict[str, Any] = {
            name: WanTransformer3DModel.from_config(WanTransformer3DModel.load_config(location, subfolder=name, **options))
            for name in present
        }
        parts["vae"] = AutoencoderKLWan.from_config(AutoencoderKLWan.load_config(location, subfolder="vae", **options))
        parts["text_encoder"] = UMT5EncoderModel(UMT5Config.from_pretrained(location, subfolder="text_encoder", **options))
    return WanPipeline(
        tokenizer=None,
        scheduler=scheduler.from_pretrained(location, subfolder="scheduler", **options),
        **parts,
        boundary_ratio=index.get("boundary_ratio"),
        expand_timesteps=bool(index.get("expand_timesteps")),
    )
