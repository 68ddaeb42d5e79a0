"""Read a dataset with torch: its training split in batches of equal clips, controls beside the frames.

python examples/read_in_torch.py out/demo
"""

from __future__ import annotations

import sys

import torch
from torch.utils.data import DataLoader

from generator import Dataset


def main(folder: str) -> None:
    """Print the shape of each batch of the training split of the newest version."""
    train = Dataset.open(folder, "latest").split("train")
    lengths = sorted({row["frames"] for row in train.labels.to_pylist()})
    for frames in lengths:  # a batch holds clips of one length
        loader = DataLoader(train.where(f"frames = {frames}"), batch_size=4, shuffle=True, num_workers=2)
        for batch in loader:
            video_BTHW3 = torch.as_tensor(batch["video"]).float() / 127.5 - 1  # uint8 sRGB to [-1, 1]
            controls = {name: values.tolist() for name, values in batch.items() if name.endswith("_control")}
            print(tuple(video_BTHW3.shape), batch["caption"][0], controls)


if __name__ == "__main__":
    main(*sys.argv[1:])
