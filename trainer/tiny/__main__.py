"""`python -m trainer.tiny STAGE|all --work out/tiny`: trains the bundled backbone from nothing; stop it and go on at will."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path

from generator.processes.children import guard_children
from generator.processes.processors import share_processors
from scenes.errors import StopdownError
from trainer.config.requirements import require_training_stack

NAMES = ("world", "clips", "tokenizer", "vae", "latents", "transformer", "decoder", "export", "recogniser", "quality")
FORMER_NAMES = {"polish": "decoder"}  # of stages, as earlier versions called them


def main(arguments: list[str] | None = None) -> int:
    """Run one stage or all in order; returns the exit code: 0 done, 2 refused, 130 stopped."""
    parser = argparse.ArgumentParser(prog="python -m trainer.tiny", description=__doc__)
    parser.add_argument("stage", choices=[*NAMES, "all"], type=lambda name: FORMER_NAMES.get(name, name))
    parser.add_argument("--work", type=Path, default=Path("out/tiny"), help="the folder of checkpoints and logs")
    parser.add_argument("--out", type=Path, help="where export writes; the package's own folder if not given")
    parser.add_argument("--settings", type=Path, help="a TOML file that overrides trainer/tiny/shared/config.py")
    parser.add_argument("--threads", type=int, help="threads of torch; one per core if not given")
    given = parser.parse_args(arguments)
    guard_children()
    share_processors()
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    try:
        require_training_stack()
        import torch

        from trainer.tiny.shared.config import SHIPPED, read_settings
        from trainer.tiny.stages import STAGES, TinyWork

        if given.threads is not None:
            torch.set_num_threads(given.threads)
        work = TinyWork(given.work, read_settings(given.settings), stopping.is_set, given.out or SHIPPED)
        for name in NAMES if given.stage == "all" else (given.stage,):
            if stopping.is_set():
                return 130
            print(f"stage {name}", flush=True)  # noqa: T201
            STAGES[name](work)
    except KeyboardInterrupt:
        return 130
    except StopdownError as error:
        print(f"stopdown: error: {error}", file=sys.stderr)  # noqa: T201
        return 2
    return 130 if stopping.is_set() else 0


if __name__ == "__main__":
    sys.exit(main())
