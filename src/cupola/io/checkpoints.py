"""Weights that others published: torch files (zip and legacy), pickles of numpy arrays and safetensors, as plain data.

Nothing in a file is executed: see `cupola.io.pickles`. torch is imported when the first file is read.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cupola.errors import CheckpointError
from cupola.io.pickles import BROKEN, BUILDERS, PLAIN_NAMES, Machine, Name, Stream, UnsafePickleError, plain, refusal

if TYPE_CHECKING:
    import torch

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""First object of a file of torch < 1.6 (or saved in its way)."""
LEGACY_PROTOCOL = 1001

STORAGES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8",
    "ByteStorage": "uint8", "BoolStorage": "bool", "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
}  # fmt: skip
"""The type of the elements of each storage class that torch names in its files."""

DTYPES = tuple(f"torch.{name}" for name in (*STORAGES.values(), "float", "double", "half", "long", "int"))


def read_checkpoint(path: Path, settings: Iterable[str] = ()) -> Any:
    """What a published file holds: tensors (torch, CPU), arrays (numpy) and plain containers.

    settings: classes or packages ("argparse.Namespace", "omegaconf") whose objects may appear and become dictionaries;
    `cupola.io.pickles.SETTINGS` lists the usual ones. Raises `CheckpointError` for a file that is missing, cut off,
    damaged, or asks for anything else, which it names.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(4)
            stream.seek(0)
            return plain(_read(path, stream, head, tuple(settings)))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    except UnsafePickleError as error:
        raise refusal(path, error) from error
    except BROKEN as error:
        raise refusal(path, error) from error


def _read(path: Path, stream: Stream, head: bytes, settings: tuple[str, ...]) -> Any:
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(str(error)) from error
    if head == b"PK\x03\x04":
        return _read_zip(stream, settings)
    first = Machine(_torch_builders(), _torch_names(), settings, _no_storage).read(stream)
    return _read_legacy(stream, settings) if first == LEGACY_MAGIC else first


def _no_storage(_: Any) -> Any:
    raise ValueError("tensors without their values")


def _torch_names() -> tuple[str, ...]:
    return (*PLAIN_NAMES, *(f"torch.{name}" for name in STORAGES), *DTYPES)


def _torch_builders() -> dict[str, Callable[..., Any]]:
    return {
        **BUILDERS,
        "torch._utils._rebuild_tensor": _tensor,
        "torch._utils._rebuild_tensor_v2": _tensor,
        "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
        "torch.Size": lambda *size: tuple(*size),
        "torch.device": lambda *name: ":".join(map(str, name)),
    }


def _tensor(storage: torch.Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Any:
    """A view of a storage, within its bounds. Raises `ValueError` outside them."""
    if not (len(size) == len(stride) and all(n >= 0 for n in (offset, *size, *stride))):
        raise ValueError(f"a tensor of size {size} and stride {stride}")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if math.prod(size) else -1
    if last >= storage.numel() or math.prod(size) > storage.numel():
        raise ValueError(f"a tensor of size {size} in a storage of {storage.numel()} elements")
    return storage.as_strided(size, stride, offset)


def _described(identity: Any) -> tuple[str, torch.dtype, int]:
    """(key, type, number of elements) of a storage's persistent id."""
    import torch

    kind, storage, key, _, count = identity[:5]
    name = storage.path.removeprefix("torch.") if isinstance(storage, Name) else str(storage)
    if kind != "storage" or name not in STORAGES or not isinstance(count, int) or count < 0:
        raise ValueError(f"a storage {kind!r} of type {name}")
    if len(identity) > 5 and identity[5] is not None:
        raise UnsafePickleError("a view of a storage, as files of torch 0.1 hold them")
    return str(key), getattr(torch, STORAGES[name]), count


def _filled(content: bytearray, dtype: torch.dtype, count: int) -> torch.Tensor:
    import torch

    if len(content) != count * dtype.itemsize:
        raise ValueError(f"{len(content)} bytes for {count} elements of {dtype}")
    return torch.frombuffer(content, dtype=dtype) if count else torch.empty(0, dtype=dtype)


def _read_zip(stream: Stream, settings: tuple[str, ...]) -> Any:
    """A file of torch >= 1.6: FOLDER/data.pkl and FOLDER/data/KEY, stored without compression."""
    with zipfile.ZipFile(stream) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl") or name == "data.pkl"]
        if len(pickles) != 1:
            raise ValueError("a zip archive without data.pkl")
        folder = pickles[0].removesuffix("data.pkl")
        if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
            raise UnsafePickleError("unpacking of compressed entries")
        if f"{folder}byteorder" in archive.namelist() and archive.read(f"{folder}byteorder") != b"little":
            raise UnsafePickleError("big-endian numbers")
        storages: dict[str, torch.Tensor] = {}

        def storage(identity: Any) -> torch.Tensor:
            key, dtype, count = _described(identity)
            if key not in storages:
                storages[key] = _filled(bytearray(archive.read(f"{folder}data/{key}")), dtype, count)
            if storages[key].dtype != dtype:
                raise ValueError(f"storage {key} has two types")
            return storages[key]

        machine = Machine(_torch_builders(), _torch_names(), settings, storage)
        return machine.read(io.BytesIO(archive.read(pickles[0])))


def _read_legacy(stream: Stream, settings: tuple[str, ...]) -> Any:
    """A file of torch < 1.6 behind its magic number: protocol, system, object, keys of the storages, their values."""
    size = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    numbers = Machine()
    _, protocol, system = numbers.read(stream), numbers.read(stream), numbers.read(stream)
    if protocol != LEGACY_PROTOCOL or not system.get("little_endian", True):
        raise UnsafePickleError(f"protocol {protocol} or big-endian numbers")
    storages: dict[str, tuple[bytearray, torch.Tensor]] = {}

    def storage(identity: Any) -> torch.Tensor:
        """Room for the values, which come later in the file."""
        key, dtype, count = _described(identity)
        if key not in storages:
            if count * dtype.itemsize > size - sum(len(content) for content, _ in storages.values()):
                raise EOFError("the values of a tensor are missing")
            content = bytearray(count * dtype.itemsize)
            storages[key] = content, _filled(content, dtype, count)
        return storages[key][1]

    result = Machine(_torch_builders(), _torch_names(), settings, storage).read(stream)
    for key in numbers.read(stream):
        content, values = storages[str(key)]
        (count,) = struct.unpack("<q", stream.read(8))
        if count != values.numel() or stream.readinto(content) != len(content):
            raise EOFError(f"storage {key} is incomplete")
    return result
