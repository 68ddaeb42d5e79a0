"""Pictures inside pages: frames made smaller, and bytes as data: URIs. Frames are sRGB uint8 `[H, W, 3]`."""

from __future__ import annotations

import base64
import io

from PIL import Image

from scenes.arrays import Bytes

POSTER_PX = 320


def scaled(frame_HW3: Bytes, longest_px: int) -> Image.Image:
    """Return a frame as a picture, made smaller where its longer side is over `longest_px`."""
    picture = Image.fromarray(frame_HW3)
    factor = longest_px / max(picture.size)
    if factor >= 1:
        return picture
    return picture.resize((round(picture.width * factor), round(picture.height * factor)), Image.Resampling.LANCZOS)


def webp(frame_HW3: Bytes, longest_px: int, quality: int) -> str:
    """Return a frame as a data: URI of a WebP picture, made smaller where its longer side is over `longest_px`."""
    file = io.BytesIO()
    scaled(frame_HW3, longest_px).save(file, "WEBP", quality=quality, method=4)
    return data_uri("image/webp", file.getvalue())


def data_uri(kind: str, data: bytes) -> str:
    """Return bytes of a media type as a data: URI."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
