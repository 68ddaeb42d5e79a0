"""What reaches a terminal: text from data cannot command it, an encoding that lacks a character gets an escape, and output
that cannot be written ends the command in one line.

A caption, a message, a name or a file's path may hold terminal escapes. Every print goes through the streams that `own_streams`
sets, which show control characters as `\\u001b`; rich, whose own colours are such escapes, goes round them, so that its text is
cleaned in `generator.console.terminal`.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
from typing import Any, TextIO

from generator.errors import OutputError

# C0, DEL and C1, and what turns the direction of text round; a tab and a line's end are text.
CONTROLS = (*range(0x09), *range(0x0B, 0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_SHOWN = {code: f"\\u{code:04x}" for code in CONTROLS}
_ESCAPES = "stopdown-escapes"


def own_streams() -> None:
    """Give this process streams of the kind above; a closed one fails as it would if it were written to, not earlier.

    Streams that are none of the process's own (a test's) are left as they are.
    """
    codecs.register_error(_ESCAPES, _escape)
    for number in range(3):  # a file opened later must not become standard output
        with contextlib.suppress(OSError):
            os.fstat(number)
            continue
        os.open(os.devnull, os.O_RDONLY if number == 1 else os.O_RDWR)
    sys.stdout = _own(sys.stdout, _Output(1, "w", closefd=False), _SHOWN)
    # A carriage return on the error stream is a progress bar's.
    sys.stderr = _own(sys.stderr, _Errors(2, "w", closefd=False), {**_SHOWN, ord("\r"): "\r"})


def discard_output() -> None:
    """Send what is left to be written nowhere, so that the interpreter does not try it once more at its end."""
    with contextlib.suppress(OSError):
        descriptor = os.open(os.devnull, os.O_WRONLY)
        os.dup2(descriptor, 1)
        os.close(descriptor)


class _Output(io.FileIO):
    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(f"the output cannot be written ({error.strerror}); give a standard output that can") from error


class _Errors(io.FileIO):
    def write(self, data: Any) -> int:
        with contextlib.suppress(OSError):  # there is nowhere to say that nothing can be said; the work goes on
            return super().write(data)
        return len(data)


class _Stream(io.TextIOWrapper):
    shown: dict[int, str]

    def write(self, text: str) -> int:
        super().write(text.translate(self.shown))
        return len(text)

    @property
    def rich_proxied_file(self) -> _Unfiltered:
        """What rich writes to in the place of this stream."""
        return _Unfiltered(self)


class _Unfiltered:
    def __init__(self, stream: io.TextIOWrapper) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return io.TextIOWrapper.write(self._stream, text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _own(stream: TextIO | None, raw: io.FileIO, shown: dict[int, str]) -> TextIO:
    """Return a stream over a descriptor with the settings of the one that Python made, or that one where it is no such."""
    if stream is None:
        made = _Stream(io.BufferedWriter(raw), encoding="utf-8", errors=_ESCAPES)
    elif type(stream) is io.TextIOWrapper and isinstance(getattr(stream.buffer, "raw", stream.buffer), io.FileIO):
        stream.flush()
        made = _Stream(
            io.BufferedWriter(raw),
            encoding=stream.encoding,
            errors=_ESCAPES,
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )
    else:
        return stream
    made.shown = shown
    return made


def _escape(error: UnicodeError) -> tuple[str, int]:
    """Return what stands for characters that an encoding lacks: JSON's escapes, so that JSON stays what it was."""
    assert isinstance(error, UnicodeEncodeError)
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2)), error.end
