"""Serves the page on this machine: no telemetry, no public link, nothing fetched."""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from scenes.errors import InputError

if TYPE_CHECKING:
    from trainer.play.play_session import Session

LOOPBACK = "127.0.0.1"
SILENT = {  # Gradio and the hub's client read them when they are imported
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_SHARE": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


def require_app() -> None:
    """Raise InputError naming the extra where Gradio is not installed."""
    if importlib.util.find_spec("gradio") is None:
        raise InputError("gradio not installed; the app needs the extra 'app': pip install 'stopdown[app]'")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_address(host: str, port: int) -> None:
    """Raise InputError for a host that is not this machine's, and for a port that cannot be or is taken."""
    if not 1 <= port <= 65535:
        raise InputError(f"port {port} cannot be; give one from 1 to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except socket.gaierror:
        raise InputError(f"host '{host}' is unknown; give an address of this machine, such as {LOOPBACK}") from None
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise InputError(f"{host}:{port} cannot be listened on ({why}); give another --port, or another --host") from None


def silence(folder: Path) -> None:
    """Set what Gradio reads from the environment: no telemetry, its copies of videos in `folder`, no proxy to this machine.

    To be called before Gradio is imported.
    """
    os.environ.update(SILENT)
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    for name in ("NO_PROXY", "no_proxy"):
        known = [part for part in os.environ.get(name, "").split(",") if part]
        os.environ[name] = ",".join(dict.fromkeys([*known, LOOPBACK, "localhost"]))


@contextmanager
def serving(session: Session, host: str, port: int) -> Iterator[str]:
    """Serve the page of a session and yield its address; the server stops with the block.

    Raises InputError for an address that cannot be listened on.
    """
    require_app()
    check_address(host, port)
    silence(session.folder / "served")
    from starlette.middleware import Middleware

    from trainer.play.play_page import build_page, css, theme
    from trainer.play.same_origin import OriginGuard

    page = build_page(session)
    try:
        _, address, _ = page.launch(
            server_name=host,
            server_port=port,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            inbrowser=False,
            show_error=False,
            allowed_paths=[str(session.folder)],
            footer_links=[],
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            enable_monitoring=False,
            app_kwargs={"middleware": [Middleware(OriginGuard, host=host)]},
            max_file_size=0,  # the page takes no files
            theme=theme(),
            css=css(),
        )
        yield str(address)
    except OSError as error:
        raise InputError(f"{host}:{port} cannot be listened on ({error}); give another --port, or another --host") from None
    finally:
        page.close(verbose=False)
