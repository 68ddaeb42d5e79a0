"""The number format of the tiny backbone: bfloat16 where there is hardware for its matrix products, else float32.

A processor with AVX-512 but no AMX multiplies bfloat16 matrices more slowly than float32 ones: 68 to 78 GFLOP/s beside 91 to
112 (torch 2.13, one thread, the transformer's sizes), and its attention takes twice as long.
"""

from __future__ import annotations

import torch


def autocast(device: str = "cpu") -> torch.autocast:
    """Return a context that computes in bfloat16 where that pays on a device, and changes nothing elsewhere."""
    return torch.autocast(device, torch.bfloat16, enabled=bfloat16_pays(device))


def bfloat16_pays(device: str) -> bool:
    """Return whether bfloat16 is the faster format on a device."""
    return device != "cpu" or bool(torch.cpu.get_capabilities().get("amx_bf16"))
