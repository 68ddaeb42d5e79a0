"""What the control path adds to plain LoRA training: the ratio of step times, joint over lora_only. Target: at most 1.03.

Both arms stand in one process on two copies of the same random backbone; steps alternate (joint, plain, plain, joint), and
the report gives the median of the paired ratios with its quartiles. On the CPU the clock is CPU time of this process, which
other programs disturb least. Operations alone say 1.0002 (trainer/estimates/flops.py).

    python benchmarks/control_overhead.py --pairs 10
    python benchmarks/control_overhead.py --device cuda --backbone wan2.1-t2v-1.3b --frames 9 --pairs 20   # with a GPU
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from rich.console import Console
from step_parts import BACKBONES, Step, device_name, latent_size, random_backbone, reference_adapter, seconds

from trainer.estimates.flops import Shape, step_flops

TARGET = 1.03
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", choices=list(BACKBONES), default="middle")
    parser.add_argument("--frames", type=int, default=1)
    parser.add_argument("--size", type=int, default=512, help="pixels, height and width")
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=RESULTS / "control_overhead.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    report = compare(options)
    Console().print(report, highlight=False)
    options.out.write_text(json.dumps(report, indent=2) + "\n")


def compare(options: argparse.Namespace) -> dict[str, object]:
    """Return the paired comparison of the two arms."""
    device = torch.device(options.device)
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    size = latent_size(options.backbone, batch=1, frames=options.frames, height=options.size, width=options.size)
    tokens = size[2] * (size[3] // 2) * (size[4] // 2)
    arms, counts = {}, {}
    for arm in ("joint", "lora_only"):
        transformer = random_backbone(options.backbone, device).train()
        counts[arm] = Shape.of(transformer)
        adapter = reference_adapter(transformer, arm)
        if options.checkpointing:
            transformer.enable_gradient_checkpointing()
        arms[arm] = Step(adapter, size_BCTHW=size, per_token_times=BACKBONES[options.backbone].expand_timesteps)
        counts[arm] = step_flops(counts[arm], adapter.config, tokens=tokens, checkpointing=options.checkpointing).hardware
        arms[arm]()  # warms up
    ratios, plain_s = [], []
    for _ in range(options.pairs):
        first, plain, again, last = (seconds(arms[arm], clock) for arm in ("joint", "lora_only", "lora_only", "joint"))
        ratios.append((first + last) / (plain + again))
        plain_s += [plain, again]
    lower, median, upper = statistics.quantiles(ratios, n=4)
    return {
        "device": device_name(device),
        "torch": torch.__version__,
        "backbone": options.backbone,
        "video_tokens": tokens,
        "checkpointing": options.checkpointing,
        "clock": "wall" if device.type == "cuda" else "CPU time of the process",
        "pairs": options.pairs,
        "lora_only_step_s": statistics.median(plain_s),
        "ratio_median": median,
        "ratio_quartiles": [lower, upper],
        "ratio_of_operations": counts["joint"] / counts["lora_only"],
        "target": TARGET,
        "met": median <= TARGET,
    }


if __name__ == "__main__":
    main()
