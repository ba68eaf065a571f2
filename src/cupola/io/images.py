"""Images from and to disk. What others made is untrusted: sizes are checked before anything is decoded."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Integer, UInt8

from cupola.errors import DiskError, ImageError
from cupola.io.files import write_bytes

MAX_PIXELS = 200_000_000
"""Larger images are refused before decoding [px]; a 100-megapixel camera fits, a decompression bomb does not."""

TAIL = 4096
"""Bytes in which the end mark of a PNG or JPEG must lie; some cameras append a little behind it."""

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp")


def _png_size(head: bytes) -> tuple[int, int] | None:
    if head[:8] != b"\x89PNG\r\n\x1a\n" or head[12:16] != b"IHDR":
        return None
    width, height = struct.unpack(">II", head[16:24])
    return height, width


def _jpeg_size(content: bytes) -> tuple[int, int] | None:
    if content[:2] != b"\xff\xd8":
        return None
    at = 2
    while at + 9 < len(content):
        if content[at] != 0xFF:
            return None
        marker = content[at + 1]
        if marker == 0xFF:
            at += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", content[at + 5 : at + 9])
            return height, width
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:
            at += 2
        else:
            at += 2 + struct.unpack(">H", content[at + 2 : at + 4])[0]
    return None


def _bmp_size(head: bytes) -> tuple[int, int] | None:
    if head[:2] != b"BM" or len(head) < 26:
        return None
    width, height = struct.unpack("<ii", head[18:26])
    return abs(height), abs(width)


def _check_size(path: Path, content: bytes) -> None:
    """Refuses an image by the size its header claims. Formats whose header we do not read are left to OpenCV's own
    limit of 2^30 pixels."""
    size = _png_size(content[:32]) or _jpeg_size(content) or _bmp_size(content[:32])
    if size is None:
        return
    height, width = size
    if height < 1 or width < 1 or height * width > MAX_PIXELS:
        raise ImageError(
            f"{path} claims to hold {width} x {height} pixels, which is outside 1 .. {MAX_PIXELS:,}; shrink it first"
        )


def _is_cut_off(content: bytes) -> bool:
    """Whether a PNG or JPEG lacks its end. (Decoders fill what is missing with grey and say nothing.)"""
    tail = content[-TAIL:]
    if content[:8] == b"\x89PNG\r\n\x1a\n":
        return b"IEND" not in tail
    return content[:2] == b"\xff\xd8" and b"\xff\xd9" not in tail


def _decode(path: Path, flags: int) -> np.ndarray:
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise ImageError(f"{path} does not exist") from error
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror}") from error
    if not content:
        raise ImageError(f"{path} is empty; copy it again")
    _check_size(path, content)
    if _is_cut_off(content):
        raise ImageError(f"{path} is cut off after {len(content)} bytes; copy it again")
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error as error:
        raise ImageError(f"{path} is not an image that can be read, or is damaged; copy it again") from error
    if image is None:
        raise ImageError(f"{path} is not an image that can be read, or is damaged; copy it again")
    return image


def read_rgb(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """Reads an image as 8-bit RGB: grey is repeated, 16 bit is scaled down, transparency is dropped, EXIF rotation is
    applied. Raises `ImageError` naming the file."""
    image = _decode(path, cv2.IMREAD_COLOR)
    return np.ascontiguousarray(image[..., ::-1])


def read_stored(path: Path) -> np.ndarray:
    """Reads an image as stored: number of channels (BGR) and bits untouched. Raises `ImageError`."""
    return _decode(path, cv2.IMREAD_UNCHANGED)


def read_ids(path: Path) -> Integer[np.ndarray, "h w"]:
    """Reads a one-channel image of ids as stored (8 or 16 bit, no conversion). Raises `ImageError`."""
    image = read_stored(path)
    if image.ndim != 2 or image.dtype not in (np.uint8, np.uint16, np.int32):
        raise ImageError(f"{path} is not a one-channel image of ids; it has shape {image.shape}, type {image.dtype}")
    return image.astype(np.int32)


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) [px], from the header where the format allows, else by decoding. Raises `ImageError`."""
    try:
        with path.open("rb") as file:
            head = file.read(1 << 16)
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror}") from error
    size = _png_size(head[:32]) or _jpeg_size(head) or _bmp_size(head[:32])
    if size is None:
        image = _decode(path, cv2.IMREAD_COLOR)
        size = image.shape[0], image.shape[1]
    return size


def holds_several(path: Path) -> bool:
    """Whether a PNG, WebP or TIFF holds more pictures than the first, which is the one that is read."""
    suffix = path.suffix.lower()
    if suffix not in (".png", ".webp", ".tif", ".tiff"):
        return False
    try:
        with path.open("rb") as file:
            head = file.read(1 << 12)
        if suffix.startswith(".tif"):
            return cv2.imcount(str(path)) > 1
    except (OSError, cv2.error):
        return False
    if suffix == ".webp":
        return head[12:16] == b"VP8X" and bool(head[20] & 2)
    return b"acTL" in head.partition(b"IDAT")[0]


def write_png(path: Path, image: np.ndarray) -> None:
    """Writes 8 or 16 bit channels (BGR) as PNG, atomically. Raises `DiskError`."""
    encoded, content = cv2.imencode(".png", image)
    if not encoded:
        raise DiskError(f"{path} could not be encoded as PNG")
    write_bytes(path, content.tobytes())


def write_rgb(path: Path, image: UInt8[np.ndarray, "h w 3"]) -> None:
    """Writes an RGB image as PNG, atomically. Raises `DiskError`."""
    write_png(path, image[..., ::-1])


def write_ids(path: Path, ids: Integer[np.ndarray, "h w"], bits: int) -> None:
    """Writes ids as a one-channel PNG of 8 or 16 bits, atomically. Raises `ValueError` where an id does not fit."""
    if bits not in (8, 16):
        raise ValueError(f"bits must be 8 or 16, not {bits}")
    if ids.size and (ids.min() < 0 or ids.max() >= 1 << bits):
        raise ValueError(f"ids {ids.min()}..{ids.max()} do not fit {bits} bits ({path})")
    write_png(path, ids.astype(np.uint8 if bits == 8 else np.uint16))
