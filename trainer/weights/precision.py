"""The number format of matrix products: bfloat16 where a device has hardware for them, else float32.

A processor with AVX-512 but no AMX multiplies bfloat16 matrices more slowly than float32 ones: 68 to 78 GFLOP/s beside 91 to
112 (torch 2.13, one thread, the transformer's sizes), and its attention takes twice as long. One with AVX2 alone imitates the
format: a step of the transformer's training took 22.0 CPU seconds in bfloat16 and 2.4 in float32 (`benchmarks/tiny_step.py`).
"""

from __future__ import annotations

import torch


def autocast(device: str = "cpu") -> torch.autocast:
    """Return a context that computes in bfloat16 where that pays on a device, and changes nothing elsewhere."""
    return torch.autocast(device, torch.bfloat16, enabled=bfloat16_pays(device))


def bfloat16_pays(device: str) -> bool:
    """Return whether bfloat16 is the faster format on a device."""
    return device != "cpu" or bool(torch.cpu.get_capabilities().get("amx_bf16"))
