"""Flow and disparity in the files people have: KITTI's 16-bit PNG, .flo, PFM and npz. Unknown is NaN in memory.

The suffix tells the format. Flow is (x, y) [px], x to the right and y down; disparity is positive [px].
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from cupola.errors import DataError
from cupola.io.files import write_bytes
from cupola.io.images import MAX_PIXELS, read_stored, write_png

FIELD_SUFFIXES = (".png", ".flo", ".pfm", ".npz")
"""What is read and written, in the order in which it is looked for; .flo holds flow only."""

KITTI_FLOW_UNIT, KITTI_FLOW_ZERO = 64, 1 << 15
"""KITTI's flow PNG: 64 steps a pixel around 2^15; the third channel is 1 where the flow is known."""
KITTI_DISPARITY_UNIT = 256
"""KITTI's disparity PNG: 256 steps a pixel, 0 = unknown."""
FLO_MAGIC = struct.pack("<f", 202021.25)
FLO_UNKNOWN = np.float32(1e10)
"""Middlebury's .flo: longer than 1e9 is unknown."""
FLO_LIMIT = 1e9


def read_flow(path: Path) -> Float32[np.ndarray, "2 h w"]:
    """Flow [px], NaN where the file calls it unknown. Raises `DataError` for a file that is missing, damaged or not a
    flow."""
    if path.suffix == ".png":
        stored = read_stored(path)
        if stored.dtype != np.uint16 or stored.ndim != 3 or stored.shape[2] != 3:
            raise DataError(f"{path} is not a flow as KITTI writes it, a PNG of three 16-bit channels")
        blue, green, red = np.moveaxis(stored, -1, 0)  # OpenCV's order
        flow = (np.stack([red, green]).astype(np.float32) - KITTI_FLOW_ZERO) / KITTI_FLOW_UNIT
        return np.where(blue > 0, flow, np.float32(np.nan))
    if path.suffix == ".flo":
        flow = _read_flo(path)
    elif path.suffix == ".pfm":
        flow = _read_pfm(path)
        if len(flow) != 3:
            raise DataError(f"{path} is not a flow: it has one channel; flow in PFM has three, the third unused")
        flow = flow[:2]
    else:
        flow = _read_npz(path, "flow")
        if flow.ndim == 3 and flow.shape[0] != 2 and flow.shape[2] == 2:
            flow = np.moveaxis(flow, -1, 0)
        if flow.ndim != 3 or flow.shape[0] != 2:
            raise DataError(f"{path} is not a flow: its shape is {flow.shape}, not (2, height, width)")
    unknown = ~(np.abs(flow) <= FLO_LIMIT).all(0)
    return np.where(unknown, np.float32(np.nan), flow)


def read_disparity(path: Path) -> Float32[np.ndarray, "h w"]:
    """Disparity [px] as stored (so negative, where the file is wrong), NaN where the file calls it unknown. Raises
    `DataError` for a file that is missing, damaged or not a disparity."""
    if path.suffix == ".png":
        stored = read_stored(path)
        if stored.dtype != np.uint16 or stored.ndim != 2:
            raise DataError(f"{path} is not a disparity as KITTI writes it, a PNG of one 16-bit channel")
        return np.where(stored > 0, stored.astype(np.float32) / KITTI_DISPARITY_UNIT, np.float32(np.nan))
    if path.suffix == ".pfm":
        disparity = _read_pfm(path)
        if len(disparity) != 1:
            raise DataError(f"{path} is not a disparity: it has three channels")
        disparity = disparity[0]
    elif path.suffix == ".npz":
        disparity = _read_npz(path, "disparity")
        if disparity.ndim != 2:
            raise DataError(f"{path} is not a disparity: its shape is {disparity.shape}, not (height, width)")
    else:
        raise DataError(f"{path}: a disparity is a .png, .pfm or .npz")
    return np.where(np.isfinite(disparity), disparity, np.float32(np.nan))


def write_flow(path: Path, flow: Float32[np.ndarray, "2 h w"]) -> None:
    """Writes flow [px], NaN = unknown, atomically. PNG keeps 1/64 px and -512 .. 512 px. Raises `DataError` for
    a flow that does not fit and for an unknown suffix, `DiskError`."""
    known = np.isfinite(flow).all(0)
    filled = np.where(known, flow, np.float32(0))
    if path.suffix == ".png":
        steps = np.rint(filled.astype(np.float64) * KITTI_FLOW_UNIT) + KITTI_FLOW_ZERO
        if steps.min(initial=0) < 0 or steps.max(initial=0) > 0xFFFF:
            raise DataError(f"{path}: KITTI's PNG holds flow up to 512 px only; write .flo or .npz")
        write_png(path, np.stack([known, steps[1], steps[0]], -1).astype(np.uint16))
    elif path.suffix == ".flo":
        values = np.where(known, flow, FLO_UNKNOWN).astype("<f4")
        size = struct.pack("<ii", flow.shape[2], flow.shape[1])
        write_bytes(path, FLO_MAGIC + size + np.moveaxis(values, 0, -1).tobytes())
    elif path.suffix == ".pfm":
        values = np.where(known, flow, np.float32(np.inf))
        _write_pfm(path, np.concatenate([values, np.zeros_like(values[:1])]))
    elif path.suffix == ".npz":
        _write_npz(path, "flow", np.where(known, flow, np.float32(np.nan)))
    else:
        raise DataError(f"{path}: a flow is written as one of {', '.join(FIELD_SUFFIXES)}")


def write_disparity(path: Path, disparity: Float32[np.ndarray, "h w"]) -> None:
    """Writes disparity [px], NaN = unknown, atomically. PNG keeps 1/256 px and up to 255.99 px, and what rounds to 0 or
    is negative becomes unknown. Raises `DataError` for a disparity that does not fit and for an unknown suffix,
    `DiskError`."""
    if path.suffix == ".png":
        steps = np.rint(np.where(disparity > 0, disparity, 0).astype(np.float64) * KITTI_DISPARITY_UNIT)
        if steps.max(initial=0) > 0xFFFF:
            raise DataError(f"{path}: KITTI's PNG holds disparities up to 256 px only; write .pfm or .npz")
        write_png(path, steps.astype(np.uint16))
    elif path.suffix == ".pfm":
        _write_pfm(path, np.where(np.isfinite(disparity), disparity, np.float32(np.inf))[None])
    elif path.suffix == ".npz":
        _write_npz(path, "disparity", disparity)
    else:
        raise DataError(f"{path}: a disparity is written as .png, .pfm or .npz")


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error


def _values(path: Path, content: bytes, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """The array of this shape that the content is. Raises `DataError` where its size is another."""
    if min(shape) < 1 or shape[0] * shape[1] > MAX_PIXELS:
        raise DataError(f"{path} claims to hold {shape[1]} x {shape[0]} pixels; write it again")
    wanted = int(np.prod(shape)) * 4
    if len(content) != wanted:
        raise DataError(f"{path} holds {len(content)} bytes of values where {wanted} are due; write it again")
    return np.frombuffer(content, dtype).reshape(shape).astype(np.float32)


def _read_flo(path: Path) -> Float32[np.ndarray, "2 h w"]:
    content = _content(path)
    if content[:4] != FLO_MAGIC or len(content) < 12:
        raise DataError(f"{path} is not a .flo file, or is cut off")
    width, height = struct.unpack("<ii", content[4:12])
    return np.moveaxis(_values(path, content[12:], "<f4", (height, width, 2)), -1, 0)


def _read_pfm(path: Path) -> Float32[np.ndarray, "c h w"]:
    """Channels first; the file's rows go upwards, and the sign of its scale tells the byte order."""
    content = _content(path)
    words: list[bytes] = []
    at = 0
    while len(words) < 4 and at < len(content):  # kind, width, height, scale, each ended by one white space
        end = next((i for i in range(at, min(len(content), at + 32)) if content[i : i + 1].isspace()), len(content))
        words, at = [*words, content[at:end]], end + 1
    try:
        channels = {b"PF": 3, b"Pf": 1}[words[0]]
        width, height, scale = int(words[1]), int(words[2]), float(words[3])
    except (KeyError, IndexError, ValueError) as error:
        raise DataError(f"{path} is not a PFM file, or is cut off") from error
    values = _values(path, content[at:], "<f4" if scale < 0 else ">f4", (height, width, channels))
    return np.ascontiguousarray(np.moveaxis(values[::-1], -1, 0))


def _write_pfm(path: Path, planes: Float32[np.ndarray, "c h w"]) -> None:
    channels, height, width = planes.shape
    head = f"{'PF' if channels == 3 else 'Pf'}\n{width} {height}\n-1.0\n".encode()
    write_bytes(path, head + np.moveaxis(planes, 0, -1)[::-1].astype("<f4").tobytes())


def _read_npz(path: Path, name: str) -> np.ndarray:
    """The array of this name, or the only one; NaN where an array `valid` beside it is false."""
    content = _content(path)
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            names = [other for other in archive.files if other != "valid"]
            chosen = name if name in names else names[0] if len(names) == 1 else None
            if chosen is None:
                raise DataError(f"{path} has no array `{name}`, but {', '.join(names) or 'none'}")
            values = archive[chosen].astype(np.float32)
            return np.where(archive["valid"] > 0, values, np.float32(np.nan)) if "valid" in archive.files else values
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error, TypeError) as error:
        raise DataError(f"{path} is not an npz file of numbers, or is damaged ({error}); write it again") from error


def _write_npz(path: Path, name: str, values: np.ndarray) -> None:
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {name: values}
    np.savez_compressed(buffer, **arrays)
    write_bytes(path, buffer.getvalue())
