"""How scenes are rendered: fidelity and sampling, declared once."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from scenes.shading import Fidelity


class RenderSettings(BaseModel):
    """The render settings of a recipe: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fidelity: Fidelity = Field(
        default="flat",
        description="flat: analytic Lambert shading, no light transport; lit: sun and shadows; pbr: principled materials.",
    )
    samples: int = Field(default=64, ge=1, le=65536, description="Most samples per pixel.")
    adaptive_threshold: float = Field(
        default=0.01,
        ge=0.0,
        le=1.0,
        description="Noise at which a pixel stops being sampled; 0 renders every sample in every pixel.",
    )
    adaptive_min_samples: int = Field(
        default=4, ge=1, le=4096, description="Samples before a pixel may stop (Cycles looks every 16 samples)."
    )
    seed: int = Field(default=0, ge=0, lt=2**31, description="Changes the noise pattern, never the content.")
    regions: bool = Field(
        default=True,
        description="Render what stands still once and then only small regions around what moves (flat only).",
    )
