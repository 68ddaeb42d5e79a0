"""What the bundled backbone is and how it is trained: every number of its stages, in one place."""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from scenes.errors import InputError

HEIGHT = WIDTH = 64
FPS = 16
SHIPPED = Path(__file__).parent.parent / "model"
Start = Literal["nothing", "shipped"]  # whether a stage begins with random weights or with those of the bundled backbone


class Settings(BaseModel):
    """Frozen settings; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def digest(self) -> str:
        """Return a short name of these settings: what was made under others is not used."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]


class Phase(Settings):
    """A stretch of training at one clip length."""

    frames: int = Field(gt=0)
    batch: int = Field(gt=0)
    steps: int = Field(gt=0)
    linear: bool = False  # the autoencoder is taught the linear code


class Optimizing(Settings):
    """How a stage descends: Muon for matrices, AdamW for the rest.

    Linear warm-up, the full rate for the share `hold`, then a cosine to `floor` of it. What is kept is the running average,
    so that a checkpoint is worth exporting long before the end.
    """

    seed: int = 0
    rate: float = Field(gt=0)
    matrix_rate: float = Field(0.02, ge=0)  # Muon's; 0 leaves all to AdamW
    plain: str = r"shared|embed|conv_in|conv_out|proj_out|norm|scale_shift"  # names that are left to AdamW
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.01
    warmup: int = 100
    hold: float = Field(0.0, ge=0, lt=1)
    floor: float = 0.05
    clip: float = 1.0
    average: float = Field(0.999, ge=0, lt=1)
    log_every: int = 50
    checkpoint_s: float = 120.0
    validate_every: int = 500
    compile: bool = True


class VaeSettings(Settings):
    """The autoencoder (Wan 2.2's residual form: 2x2 pixels a cell, then two halvings in space, one of them in time too)."""

    encoder_dim: int = 24
    decoder_dim: int = 32
    multiples: tuple[int, int, int] = (1, 2, 2)
    latent_channels: int = 32
    resnets: int = 1
    halved_in_time: tuple[bool, bool] = (True, False)
    phases: tuple[Phase, ...] = (  # none: the start is taken as it is
        Phase(frames=5, batch=8, steps=400, linear=True),
        Phase(frames=5, batch=8, steps=1800),
        Phase(frames=9, batch=4, steps=1000),
    )
    code_windows: int = 400
    start: Start = "nothing"  # what is shipped has fewer channels; the others begin faint
    noise: float = Field(0.0, ge=0)  # of normalised latents while `start` goes on; its spread is not learned anew
    kept_channels: int = 24  # of the latent channels, once their axes are known
    spectrum: float = Field(0.5, ge=0, le=1)  # normalised latents: 0 makes all as loud, 1 as loud as they are in the picture
    loudest: float = 2.2  # standard deviation of the first
    kl: float = 5e-4
    edges: float = 0.5
    sharpness: float = 0.5
    optimizing: Optimizing = Optimizing(rate=2e-3, plain="^$", warmup=30, hold=0.4, average=0.995)

    @model_validator(mode="after")
    def _something(self) -> VaeSettings:
        if not self.phases and self.start == "nothing":
            raise ValueError("an autoencoder of no phases is the start as it is: give phases, or start = 'shipped'")
        return self

    @property
    def space(self) -> int:
        """Return how many pixels a latent spans along a side."""
        return 8

    @property
    def time(self) -> int:
        """Return how many frames a latent spans."""
        return 2 ** sum(self.halved_in_time)

    def latent_frames(self, frames: int) -> int:
        """Return how many latents a clip has in time."""
        return 1 + (frames - 1) // self.time

    def pipeline_config(self) -> dict[str, Any]:
        """Return AutoencoderKLWan's arguments, the statistics of its latents still neutral."""
        return {
            "base_dim": self.encoder_dim,
            "decoder_base_dim": self.decoder_dim,
            "z_dim": self.latent_channels,
            "dim_mult": list(self.multiples),
            "num_res_blocks": self.resnets,
            "temperal_downsample": list(self.halved_in_time),
            "is_residual": True,
            "patch_size": 2,
            "in_channels": 12,
            "out_channels": 12,
            "scale_factor_spatial": self.space,
            "scale_factor_temporal": self.time,
            "latents_mean": [0.0] * self.latent_channels,
            "latents_std": [1.0] * self.latent_channels,
        }


class TextSettings(Settings):
    """The text encoder's size."""

    width: int = 64
    layers: int = 2
    heads: int = 4
    seed: int = 0


class TransformerSettings(Settings):
    """The transformer's size and its training with the text encoder: rectified flow on cached latents."""

    heads: int = 6
    head_dim: int = 32
    layers: int = 6
    feed_forward: int = 544
    patch: int = 1  # of the latents: a token is 8 x 8 pixels
    start: Start = "nothing"  # the shipped one's blocks, words and patches (taken apart where they are larger)
    things: float = Field(default=1.0, ge=1)  # weight of the loss where things are; 1 beside it
    time_features: int = 128
    turns: int = Field(default=4, ge=1, le=4)
    frames: tuple[tuple[int, float], ...] = (
        (9, 0.5),
        (5, 0.2),
        (1, 0.25),
        (13, 0.05),
    )  # clip lengths and their shares of steps
    batch: int = 32
    steps: int = 40000
    shift: float = 1.5
    empty: float = 0.12  # captions left out, for guidance
    padded: tuple[int, ...] = (64, 128, 256, 512)  # lengths of zero-padded text that the transformer is to bear
    guidance: float = 4.0
    sampling_steps: int = 24
    sampling_shift: float = 1.5
    text: TextSettings = TextSettings()
    optimizing: Optimizing = Optimizing(rate=1.2e-3, warmup=200, hold=0.6, average=0.9993, validate_every=500)


class RecogniserSettings(Settings):
    """The network that says what is in a clip: its size and training."""

    width: int = 16
    features: int = 48
    steps: int = 1500
    batch: int = 64
    rate: float = 3e-3
    seed: int = 0

    @property
    def optimizing(self) -> Optimizing:
        """How it descends: AdamW, a long warm-up, then down to nothing; nothing is averaged."""
        return Optimizing(
            seed=self.seed,
            rate=self.rate,
            matrix_rate=0.0,
            betas=(0.9, 0.999),
            weight_decay=0.05,
            warmup=max(1, round(0.15 * self.steps)),
            floor=0.0,
            clip=0.0,
            average=0.0,
            validate_every=self.steps,
            compile=False,
        )


class TinySettings(Settings):
    """All stages; `python -m trainer.tiny --settings FILE.toml` overrides what the file names."""

    # The shipped one as it is: going on with all of it lost what it knew; on latents that stay a transformer begins at once.
    vae: VaeSettings = VaeSettings(start="shipped", latent_channels=24, kept_channels=24, phases=())
    decoder: VaeSettings = VaeSettings(
        noise=0.03,
        kl=0.0,
        phases=(Phase(frames=9, batch=4, steps=2000),),
        optimizing=Optimizing(rate=3e-4, matrix_rate=0.0, plain="^$", warmup=50, hold=0.3, average=0.99, compile=False),
    )  # the decoder alone, on frozen latents
    transformer: TransformerSettings = TransformerSettings(
        start="shipped",
        things=3.0,
        batch=16,
        optimizing=Optimizing(  # compiling takes 220 CPU s for the four lengths and saves 6 %
            rate=6e-4, matrix_rate=0.01, warmup=100, hold=0.6, average=0.998, validate_every=250, compile=False
        ),
    )
    recogniser: RecogniserSettings = RecogniserSettings()
    captions_per_family: int = Field(default=200, gt=0)  # drawn for the tokenizer

    @model_validator(mode="before")
    @classmethod
    def _former_names(cls, tree: Any) -> Any:
        """Read files of earlier versions, which called the fine-tuning of the decoder `polish`."""
        if not isinstance(tree, dict) or "polish" not in tree or "decoder" in tree:
            return tree
        return {"decoder" if key == "polish" else key: value for key, value in tree.items()}


def read_settings(path: Path | None) -> TinySettings:
    """Return the settings of a TOML file, the defaults where it is silent; raises InputError for what they cannot be."""
    if path is None:
        return TinySettings()
    try:
        return TinySettings.model_validate(tomllib.loads(path.read_text(encoding="utf-8-sig")))
    except (OSError, ValueError) as error:
        first = " ".join(str(error).split())
        raise InputError(f"settings {path} cannot be used ({first}); see trainer/tiny/shared/config.py for the keys") from error
