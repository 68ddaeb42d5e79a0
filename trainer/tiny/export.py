"""Writes the trained parts as an ordinary WanPipeline folder, with a model card and a digest."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from pathlib import Path

import torch
from diffusers import UniPCMultistepScheduler, WanPipeline

from generator.io.atomic import share
from trainer.tiny.transformer.transformer_stage import TransformerStage
from trainer.training.callbacks.metrics import FILE, read_events

DIGEST = "SHA256"
CARD = """---
library_name: diffusers
pipeline_tag: text-to-video
license: cc0-1.0
---

# The tiny backbone

A small but real text-to-video model: an ordinary diffusers `WanPipeline` of {megabytes:.1f} MB, trained by this project from
nothing on clips of its own engine. It draws large coloured primitives at 64 x 64, 5, 9 or 13 frames at 16 fps. Exposure,
aperture and colour temperature vary in everything it saw, unlabelled and unsaid: it knows the effects and has no control for
them. It is the ground on which the control adapters of this project are tried, and good for nothing else.

| part | what | parameters |
|---|---|---|
| transformer | WanTransformer3DModel, {layers} blocks of width {width}, patches {patch}x{patch} | {transformer:.2f} M |
| vae | AutoencoderKLWan (residual form), {space}x in space, {time}x in time, {channels} channels | {vae:.2f} M |
| text_encoder | UMT5, {text_layers} layers of width {text_width}, trained with the transformer | {text:.2f} M |
| tokenizer | Unigram over the captions' words, characters and bytes | {vocabulary} tokens |
| scheduler | UniPC for flows, as Wan2.1's | |

## Training

- World: {clips} clips of the family `world` (`examples/tiny_world.toml`), mirrored and played backwards: {turns} turns of each.
- Autoencoder: {vae_steps} steps, and {decoder_steps} of its decoder alone; PSNR of held-out clips {vae_psnr}.
- Transformer and text encoder: {steps} of {all_steps} steps of {batch} clips, rectified flow, Muon and AdamW, running average.
- Text is zero-padded without a mask, as Wan does it; the padded length was drawn from {padded} in training, so that
  `max_sequence_length` may be any of these (WanPipeline's default is 512).
- `make tiny` reproduces it.

## Use

    pipe = WanPipeline.from_pretrained("trainer/tiny/model")
    pipe("a red cube moves from left to right in front of a dark grey backdrop", height=64, width=64, num_frames=9,
         num_inference_steps={sampling_steps}, guidance_scale={guidance:g})
"""


def export_pipeline(stage: TransformerStage, out: Path, step: int, work: Path) -> None:
    """Write the pipeline's folder whole: float16 weights (the text encoder's float32), card and digest."""
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        num_train_timesteps=1000,
        flow_shift=stage.settings.sampling_shift,
    )
    pipe = WanPipeline(
        tokenizer=stage.tokenizer,
        text_encoder=stage.text_encoder.eval(),
        transformer=stage.transformer.eval(),
        vae=stage.vae.eval(),
        scheduler=scheduler,
    )
    card = _card(stage, step, work)
    stage.transformer.to(torch.float16)
    stage.vae.to(torch.float16)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".exporting-") as scratch:
        made = Path(scratch) / "model"
        pipe.save_pretrained(made, safe_serialization=True)
        config = made / "vae" / "config.json"  # where it was loaded from is nobody's business, and in the digest
        named = json.loads(config.read_text())
        del named["_name_or_path"]
        config.write_text(json.dumps(named, indent=2) + "\n")
        size = sum(path.stat().st_size for path in made.rglob("*") if path.is_file())
        (made / "README.md").write_text(card.replace("{megabytes}", f"{size / 1e6:.1f}"))
        (made / DIGEST).write_text(folder_digest(made) + "\n")
        share(made)
        if out.exists():
            shutil.rmtree(out)
        made.rename(out)
    stage.transformer.float()
    stage.vae.float()


def folder_digest(folder: Path) -> str:
    """Return SHA-256 over the names and bytes of a model folder's files, less the card and the digest itself."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in (DIGEST, "README.md"):
            digest.update(f"{path.relative_to(folder).as_posix()} {path.stat().st_size}\n".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def decoder_folder(work: Path) -> Path:
    """Return the folder of the decoder's fine-tuning in a work folder; earlier versions called it `polish`."""
    former = work / "polish"
    return former if former.is_dir() else work / "decoder"


def _card(stage: TransformerStage, step: int, work: Path) -> str:
    settings = stage.settings
    vae_steps, psnr = _autoencoder(work / "vae")
    decoder_steps, fine_tuned = _autoencoder(decoder_folder(work))
    return CARD.format(
        megabytes=_Later("megabytes"),
        layers=settings.layers,
        width=settings.heads * settings.head_dim,
        patch=settings.patch,
        transformer=sum(p.numel() for p in stage.transformer.parameters()) / 1e6,
        space=stage.vae.config.scale_factor_spatial,
        time=stage.vae.config.scale_factor_temporal,
        channels=stage.vae.config.z_dim,
        vae=sum(p.numel() for p in stage.vae.parameters()) / 1e6,
        text_layers=settings.text.layers,
        text_width=settings.text.width,
        text=sum(p.numel() for p in stage.text_encoder.parameters()) / 1e6,
        vocabulary=len(stage.tokenizer),
        clips=sum(len(part.entries) for part in stage.latents.values()),
        turns=settings.turns,
        vae_steps=vae_steps,
        vae_psnr=fine_tuned if decoder_steps else psnr,
        decoder_steps=decoder_steps,
        steps=step,
        all_steps=settings.steps,
        batch=settings.batch,
        padded=", ".join(str(length) for length in settings.padded),
        sampling_steps=settings.sampling_steps,
        guidance=settings.guidance,
    )


def _autoencoder(folder: Path) -> tuple[int, str]:
    """Return the steps and the last held-out PSNR that a stage's log tells."""
    steps, psnr = 0, "not measured"
    path = folder / FILE
    for event in read_events(path) if path.is_file() else ():
        steps = event.step
        psnr = f"{event.values['psnr_db']:.1f} dB" if "psnr_db" in event.values else psnr
    return steps, psnr


class _Later:
    """A value that is known only after the card is written: it formats as its own field."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __format__(self, spec: str) -> str:
        return f"{{{self.name}}}"
