"""The stages from nothing to the shipped folder: each goes on where it stopped, and is passed over once it is done."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from diffusers import AutoencoderKLWan
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from generator.processes.children import stopdown_command
from scenes.errors import InputError
from trainer.data.cache import module_digest
from trainer.tiny.export import decoder_folder, export_pipeline
from trainer.tiny.quality.quality import measure_quality
from trainer.tiny.quality.recogniser import Recogniser, RecogniserStage
from trainer.tiny.shared.clips import Clips, decode_dataset, load_clips
from trainer.tiny.shared.config import SHIPPED, Optimizing, Settings, TinySettings
from trainer.tiny.shared.train_stage import TinyStage, load_average, train_stage
from trainer.tiny.transformer.latents import Latents, encode_world, write_json
from trainer.tiny.transformer.tokenizer import build_tokenizer, count_words, drawn_captions
from trainer.tiny.transformer.transformer_stage import TransformerStage
from trainer.tiny.vae.latent_pca import measured_axes, with_latent_pca
from trainer.tiny.vae.vae_stage import VaeStage, begun_vae
from trainer.training.checkpoints.checkpoint import checkpoint_steps

RECIPE = Path("examples/tiny_world.toml")


@dataclass(frozen=True)
class TinyWork:
    """The folder that all stages share, their settings, and how to learn that a person wants to stop."""

    folder: Path
    settings: TinySettings
    stop: Callable[[], bool]
    out: Path = SHIPPED

    @property
    def decoder(self) -> Path:
        """The folder of the decoder's fine-tuning; earlier versions called it `polish`."""
        return decoder_folder(self.folder)

    def finished(self, stage: str, settings: Settings) -> bool:
        """Return whether a stage is done; raises InputError where it was made under other settings."""
        path = self.folder / stage / "done.json"
        if not path.is_file():
            return False
        made = json.loads(path.read_text())["settings"]
        if made != settings.digest():
            raise InputError(
                f"{self.folder / stage} was made under settings {made}, these are {settings.digest()}; give another --work "
                "folder or delete that stage's"
            )
        return True

    def finish(self, stage: str, settings: Settings) -> None:
        """Note that a stage is done."""
        write_json(self.folder / stage / "done.json", {"settings": settings.digest()})

    def train(self, stage: TinyStage, optimizing: Optimizing, folder: Path) -> None:
        """Train a stage to its end; raises KeyboardInterrupt when asked to stop, with a checkpoint written if it had begun."""
        if self.stop():
            raise KeyboardInterrupt
        train_stage(stage, optimizing, folder)


def world(work: TinyWork) -> None:
    """Render the world, an ordinary dataset."""
    subprocess.run(stopdown_command("build", str(RECIPE), "--out", str(work.folder / "world")), check=True)


def clips(work: TinyWork) -> Clips:
    """Decode the world."""
    return decode_dataset(work.folder / "world", work.folder / "clips")


def tokenizer(work: TinyWork) -> PreTrainedTokenizerFast:
    """Count the words of the caption language and build the tokenizer."""
    folder = work.folder / "tokenizer"
    if not (folder / "tokenizer.json").is_file():
        build_tokenizer(count_words(drawn_captions(work.settings.captions_per_family))).save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def vae(work: TinyWork) -> AutoencoderKLWan:
    """Train the autoencoder and cut its latents by PCA, or take the start as it is."""
    settings, folder = work.settings.vae, work.folder / "vae"
    if not settings.phases and not work.finished("vae", settings):
        begun_vae(settings).save_pretrained(folder / "model")
        work.finish("vae", settings)
    if not work.finished("vae", settings):
        held = load_clips(work.folder / "clips")
        stage = VaeStage(settings, held)
        work.train(stage, settings.optimizing, folder)
        load_average(stage.vae, folder)
        axes = measured_axes(stage.vae, held, settings.kept_channels)
        with_latent_pca(stage.vae, axes, settings.spectrum, settings.loudest).save_pretrained(folder / "model")
        work.finish("vae", settings)
    return AutoencoderKLWan.from_pretrained(folder / "model").eval()


def decoder(work: TinyWork) -> AutoencoderKLWan:
    """Fine-tune the decoder alone: the latents stay; returns the autoencoder."""
    settings, folder = work.settings.decoder, work.decoder
    stage = VaeStage(settings, load_clips(work.folder / "clips"), vae(work))
    if not work.finished(folder.name, settings):
        work.train(stage, settings.optimizing, folder)
        work.finish(folder.name, settings)
    load_average(stage.vae, folder)
    return stage.vae.eval()


def latents(work: TinyWork) -> list[Latents]:
    """Encode the world with the finished autoencoder."""
    made = vae(work)
    held = load_clips(work.folder / "clips")
    return encode_world(made, held, work.folder / "latents", module_digest(made)[:12], work.settings.transformer.turns)


def transformer(work: TinyWork) -> TransformerStage:
    """Train the transformer and the text encoder; returns the stage with the averaged weights."""
    settings, folder = work.settings.transformer, work.folder / "transformer"
    stage = TransformerStage(settings, latents(work), tokenizer(work), vae(work))
    if not work.finished("transformer", settings):
        work.train(stage, settings.optimizing, folder)
        work.finish("transformer", settings)
    load_average(stage.module, folder)
    return stage


def export(work: TinyWork) -> None:
    """Write the averaged weights of the newest checkpoint as an ordinary WanPipeline folder.

    Raises InputError where the transformer has no checkpoint.
    """
    stage = TransformerStage(work.settings.transformer, latents(work), tokenizer(work), vae(work))
    step = load_average(stage.module, work.folder / "transformer")
    if checkpoint_steps(work.decoder):
        load_average(stage.vae, work.decoder)
    export_pipeline(stage, work.out, step, work.folder)


def recogniser(work: TinyWork) -> Recogniser:
    """Train the network that says what is in a clip, on rendered clips alone."""
    settings, folder = work.settings.recogniser, work.folder / "recogniser"
    made, former = Recogniser(settings), folder / "model.pt"
    if work.finished("recogniser", settings) and former.is_file():  # made by an earlier version
        made.load_state_dict(torch.load(former, weights_only=True))
        return made.eval()
    if not work.finished("recogniser", settings):
        work.train(RecogniserStage(settings, load_clips(work.folder / "clips")), settings.optimizing, folder)
        work.finish("recogniser", settings)
    load_average(made, folder)
    return made.eval()


def quality(work: TinyWork) -> None:
    """Measure the shipped folder on held-out clips and captions."""
    measure_quality(work.out, load_clips(work.folder / "clips"), work.folder / "quality.json", recogniser(work))


STAGES: Mapping[str, Callable[[TinyWork], object]] = MappingProxyType(
    {
        "world": world,
        "clips": clips,
        "tokenizer": tokenizer,
        "vae": vae,
        "latents": latents,
        "transformer": transformer,
        "decoder": decoder,
        "export": export,
        "recogniser": recogniser,
        "quality": quality,
    }
)
