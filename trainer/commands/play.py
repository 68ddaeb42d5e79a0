"""`stopdown play`."""

from __future__ import annotations

import re
import signal
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scenes.errors import InputError
from trainer.commands import generate_options as given
from trainer.config.requirements import require_training_stack

if TYPE_CHECKING:
    from trainer.play.play_session import Session

SIZE = re.compile(r"(\d+)x(\d+)")

Adapter = Annotated[Path, typer.Argument(help="The adapter's folder.", show_default=False)]
Size = Annotated[
    str | None,
    typer.Option(metavar="WxH", help=f"Pixels, such as 64x64; {given.FROM_BACKBONE}.", rich_help_panel=given.SAMPLING),
]
Port = Annotated[int, typer.Option(help="The port of the page.")]
Host = Annotated[
    str,
    typer.Option(
        help="Address to listen on. The page has no password: on any but a loopback address, others on the network can use it."
    ),
]


def command(
    adapter: Adapter,
    backbone: given.Backbone = None,
    size: Size = None,
    frames: given.Frames = None,
    fps: given.Fps = 16,
    steps: given.Steps = None,
    guidance: given.Guidance = None,
    text_tokens: given.TextTokens = None,
    dtype: given.Dtype = None,
    device: given.Device = None,
    offload: given.Offload = "none",
    quantize: given.Quantize = "none",
    allow_other_backbone: given.AllowOther = False,
    host: Host = "127.0.0.1",
    port: Port = 7860,
) -> None:
    """Try an adapter in a local page: a slider per axis in units, the video, and what the blind probes read in it.

    Videos are deleted when the command ends; use `stopdown generate` to keep them.
    Example: stopdown play runs/a/adapter --size 64x64 --frames 9 --steps 12
    """
    from trainer.play.serve import check_address, is_loopback, require_app, serving, silence

    require_training_stack()
    require_app()
    width, height = _size(size)
    check_address(host, port)  # before minutes of loading
    if not is_loopback(host):
        print(f"stopdown: warning: {host} lets others on the network use this page; there is no password", file=sys.stderr)
    sampling = {"frames": frames, "width": width, "height": height, "steps": steps, "text_tokens": text_tokens}
    loading = {"backbone": backbone, "allow_other_backbone": allow_other_backbone, "dtype": dtype, "device": device}
    loading |= {"offload": offload, "quantize": quantize}
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the folder of videos is removed
    with tempfile.TemporaryDirectory(prefix="stopdown-play-") as folder:
        silence(Path(folder) / "served")
        try:
            session = _session(adapter, Path(folder), {**sampling, "guidance": guidance}, loading, fps)
            with serving(session, host, port) as address:
                print(f"{address}  (Ctrl-C ends)", flush=True)
                threading.Event().wait()
        except KeyboardInterrupt:
            print("ended", file=sys.stderr)


def _session(adapter: Path, folder: Path, sampling: Mapping[str, Any], loading: Mapping[str, Any], fps: int) -> Session:
    """Load backbone and adapter, checking all that needs neither first."""
    from trainer.commands.quiet import quiet_libraries

    quiet_libraries()
    from dataclasses import replace

    from trainer.adapters.saved import SavedAdapter
    from trainer.generation.load_pipeline import Loading, default_sampling, load_controlled, resolved
    from trainer.generation.sampler import check_sampling
    from trainer.play.play_session import Session

    saved = SavedAdapter.open(adapter)
    used = resolved(Loading(**loading), saved.card)
    if not 1 <= fps <= 240:
        raise InputError(f"{fps} fps cannot be; give 1 to 240, datasets have 16")
    print(f"stopdown: loading {used.backbone} ({used.dtype} on {used.device})", file=sys.stderr)
    pipe = load_controlled(saved, used)
    asked = {name: value for name, value in sampling.items() if value is not None}
    how = replace(default_sampling(pipe, saved.card), **asked)
    check_sampling(pipe, how)
    return Session(pipe=pipe, adapter=saved, loading=used, sampling=how, folder=folder, fps=fps)


def _size(written: str | None) -> tuple[int | None, int | None]:
    if written is None:
        return None, None
    match = SIZE.fullmatch(written.strip().lower().replace("×", "x"))
    if match is None:
        raise InputError(f"size '{written}' is no size; write WIDTHxHEIGHT, such as 64x64 or 832x480")
    return int(match[1]), int(match[2])
