"""How scenes are rendered: fidelity and sampling, declared once."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from generator.recipe.section import Section
from scenes.shading import Fidelity

Softness = Literal["sharp", "lens", "motion"]

# The fewest that keep the RMSE of active pixels at or below 3/255 at 512 x 512 (benchmarks/render_noise.py): a sharp edge is
# narrow and all contrast, a blurred one is wide and needs few samples for each of its many pixels.
FLAT_SAMPLES: dict[Softness, int] = {"sharp": 128, "lens": 64, "motion": 20}
LIT_SAMPLES = 128


class RenderSettings(Section):
    """The render settings of a recipe: frozen, unknown keys refused."""

    fidelity: Fidelity = Field(
        default="flat",
        description="flat: analytic Lambert shading, no light transport; textured: that with textures and a sun's shadows; "
        "lit: sun, sky and shadows; pbr: principled materials.",
    )
    samples: int | None = Field(
        default=None,
        ge=1,
        le=65536,
        description=f"Most samples per pixel; if not given {LIT_SAMPLES}, but for flat {FLAT_SAMPLES['lens']} behind a lens "
        f"and {FLAT_SAMPLES['motion']} where motion blurs everything that moves.",
    )
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

    def samples_for(self, softness: Softness) -> int:
        """Return the most samples per pixel of a picture whose edges are sharp, or soft from a lens or from motion."""
        if self.samples is not None:
            return self.samples
        return FLAT_SAMPLES[softness] if self.fidelity == "flat" else LIT_SAMPLES
