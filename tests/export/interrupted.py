"""Export a dataset, dying by SIGKILL before the N-th file is put in place: `python interrupted.py DATASET FORMAT OUT N`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from generator.export import DatasetSource
from generator.export.run import export
from generator.versions.working.working_folder import WorkingFolder


def main(dataset: str, format: str, out: str, fatal: str) -> None:
    """Count renames, links and writes of files alike, and kill this process at one of them."""
    left = int(fatal)

    def dying(call: Any) -> Any:
        def wrapped(*args: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **options)

        return wrapped

    os.replace, os.link = dying(os.replace), dying(os.link)
    Path.write_bytes = dying(Path.write_bytes)  # type: ignore[method-assign]
    export(DatasetSource(WorkingFolder.open(dataset)), format, Path(out))


if __name__ == "__main__":
    main(*sys.argv[1:])
