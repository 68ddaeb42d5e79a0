"""The schedulers that `--scheduler` names: solvers of the flow that Wan was trained on, with the shift of its noise levels."""

from __future__ import annotations

import math
from typing import Any

from diffusers import (
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchLCMScheduler,
    UniPCMultistepScheduler,
    WanPipeline,
)

from scenes.errors import InputError, closest

MAX_SHIFT = 100.0
# name → class, and how it calls the shift of the noise levels
SCHEDULERS: dict[str, tuple[type[Any], str]] = {
    "unipc": (UniPCMultistepScheduler, "flow_shift"),
    "dpm++": (DPMSolverMultistepScheduler, "flow_shift"),
    "euler": (FlowMatchEulerDiscreteScheduler, "shift"),
    "lcm": (FlowMatchLCMScheduler, "shift"),
}


def check_scheduler(name: str | None, flow_shift: float | None) -> None:
    """Raise InputError for an unknown scheduler and a shift that cannot be."""
    if name is not None and name not in SCHEDULERS:
        raise InputError(f"scheduler '{name}' is unknown{closest(name, SCHEDULERS)}; allowed are {', '.join(SCHEDULERS)}")
    if flow_shift is not None and not (math.isfinite(flow_shift) and 0 < flow_shift <= MAX_SHIFT):
        raise InputError(f"flow shift {flow_shift:g} cannot be; give a number above 0, at most {MAX_SHIFT:g}; Wan has 3 and 5")


def use_scheduler(pipe: WanPipeline, name: str | None = None, flow_shift: float | None = None) -> None:
    """Give a pipeline another scheduler, another shift, or both; what is not given stays as the backbone has it.

    Raises InputError for an unknown scheduler.
    """
    check_scheduler(name, flow_shift)
    if name is None and flow_shift is None:
        return
    config = pipe.scheduler.config
    before = next((float(config[key]) for key in ("flow_shift", "shift") if config.get(key) is not None), 1.0)
    shift = flow_shift if flow_shift is not None else before
    if name is None:
        key = "flow_shift" if "flow_shift" in config else "shift"
        if key not in config:
            raise InputError(f"this backbone's {type(pipe.scheduler).__name__} has no flow shift; name a --scheduler as well")
        pipe.scheduler = type(pipe.scheduler).from_config(config, **{key: shift})
        return
    kind, key = SCHEDULERS[name]
    options = {"num_train_timesteps": config.get("num_train_timesteps", 1000), key: shift}
    if key == "flow_shift":
        options |= {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
    pipe.scheduler = kind(**options)
