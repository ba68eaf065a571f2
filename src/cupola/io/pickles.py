"""Pickles read as data: a small machine that follows a pickle's instructions but calls nothing the file names.

Python's own unpickler imports whatever a file asks for and calls it. Here a name in the file is only a name. The
reader hands in a table of the few names that it can build itself (an array, a tensor); names of settings classes
that the caller lists come back as plain dictionaries; any other name ends the reading.
"""

from __future__ import annotations

import io
import pickletools
import struct
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cupola.errors import CheckpointError

Stream = io.BytesIO | io.BufferedReader

NAMESPACE = ("argparse.Namespace", "types.SimpleNamespace")
YACS = ("yacs.config.CfgNode", "fvcore.common.config.CfgNode", "detectron2.config.config.CfgNode")
OMEGACONF = ("omegaconf", "typing", *(f"builtins.{name}" for name in ("str", "bool", "object")))
LIGHTNING = tuple(
    f"{module}.AttributeDict"
    for module in (
        "pytorch_lightning.utilities.parsing",
        "lightning_fabric.utilities.data",
        "lightning.pytorch.utilities.parsing",
        "lightning.fabric.utilities.data",
    )
)
SETTINGS = (*NAMESPACE, *YACS, *OMEGACONF, *LIGHTNING)
"""Names of the settings objects found in published checkpoints, for `settings=` of the readers. An entry names a class
or all of a package. None of them is imported."""

BROKEN = (
    *(EOFError, IndexError, KeyError, ValueError, TypeError, AttributeError, struct.error, zipfile.BadZipFile),
    *(NotImplementedError, OverflowError, MemoryError, RecursionError),
)
"""What reading damaged bytes may raise."""


class UnsafePickleError(Exception):
    """The file asks for something that is not plain data; the message names it."""


@dataclass(frozen=True)
class Name:
    """A class or function that the file names: never imported, and called only through the reader's table."""

    path: str


@dataclass(eq=False)
class Record:
    """A settings object as found: arguments, attributes and, for classes that extend dict or list, its content."""

    path: str
    arguments: tuple[Any, ...] = ()
    state: Any = None
    items: dict[Any, Any] = field(default_factory=dict)
    elements: list[Any] = field(default_factory=list)


class Mark:
    """The bottom of the items that an instruction collects."""


@dataclass(eq=False)
class _DType:
    text: str
    is_big: bool = False

    def set_state(self, state: Any) -> None:
        self.is_big = state[1] == ">"

    def dtype(self) -> np.dtype[Any]:
        if self.text[:1] not in "biufc" or not self.text[1:].isdigit():
            raise UnsafePickleError(f"a numpy array of type {self.text!r}")
        return np.dtype(self.text).newbyteorder(">" if self.is_big else "<")


@dataclass(eq=False)
class _Array:
    value: np.ndarray | None = None

    def set_state(self, state: Any) -> None:
        _, shape, dtype, is_fortran, content = state
        self.value = _array(content, dtype, shape, "F" if is_fortran else "C")


def _array(content: Any, dtype: Any, shape: Any, order: str) -> np.ndarray:
    if not isinstance(dtype, _DType):
        raise TypeError("a numpy array without a type")
    kind = dtype.dtype()
    raw = content.encode("latin-1") if isinstance(content, str) else content
    return np.frombuffer(bytearray(raw), kind).reshape(shape, order="F" if order == "F" else "C")


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _scalar(dtype: _DType, content: Any) -> Any:
    return _array(content, dtype, (1,), "C")[0].item()


def _buffer(content: Any, dtype: _DType, shape: Any, order: str) -> np.ndarray:
    return _array(content, dtype, shape, order)


def _encode(text: str, encoding: str = "latin-1") -> bytes:
    if encoding not in ("latin1", "latin-1", "utf-8", "ascii"):
        raise UnsafePickleError(f"the text encoding {encoding!r}")
    return text.encode(encoding)


def _bytes(content: Any = b"", encoding: str = "latin-1") -> bytes:
    """Bytes from bytes or text; never from a number, which would be as many zeros as the file likes."""
    return _encode(content, encoding) if isinstance(content, str) else bytes(_of_type(content, bytes))


def _mapping(*pairs: Any) -> dict[Any, Any]:
    return dict(pairs[0]) if pairs and isinstance(pairs[0], (dict, list)) else {}


def _set(elements: Any = ()) -> set[Any]:
    return {_key(element) for element in elements}


BUILDERS: dict[str, Callable[..., Any]] = {
    "_codecs.encode": _encode,
    "builtins.bytes": _bytes,
    "builtins.bytearray": _bytes,
    "builtins.frozenset": _set,
    "builtins.set": _set,
    "collections.OrderedDict": _mapping,
    "collections.defaultdict": lambda *_: {},
    "numpy.dtype": lambda text, *_: _DType(text),
    "numpy._core.multiarray._reconstruct": _reconstruct,
    "numpy._core.multiarray.scalar": _scalar,
    "numpy._core.numeric._frombuffer": _buffer,
}
"""What every reader can build. The functions see data only."""

PLAIN_NAMES = ("numpy.ndarray", "builtins.dict", "builtins.list", "builtins.int", "builtins.float")
"""May be named (as the type of an array, the default of a defaultdict), never called."""


def _spelt(module: str, name: str) -> str:
    """One spelling for what Python 2 and older releases of numpy call otherwise."""
    module = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)
    if module == "numpy.core" or module.startswith("numpy.core."):
        module = "numpy._core" + module[len("numpy.core") :]
    return f"{module}.{name}"


class Machine:
    """Reads one pickle from a stream, which is left behind its last byte.

    builders: name -> what to make of its arguments; names: may be named but not called; settings: classes or packages
    that become `Record`s; persistent: makes the object of a persistent id (a tensor's storage).
    """

    def __init__(
        self,
        builders: Mapping[str, Callable[..., Any]] = BUILDERS,
        names: Iterable[str] = PLAIN_NAMES,
        settings: Iterable[str] = (),
        persistent: Callable[[Any], Any] | None = None,
    ) -> None:
        self._builders, self._names, self._settings = builders, frozenset(names), tuple(settings)
        self._persistent = persistent
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def read(self, stream: Stream) -> Any:
        """The object, settings still as `Record`s: see `plain`. Raises `UnsafePickleError`, or one of `BROKEN`."""
        self._stack, self._memo = [], {}
        for opcode, argument, _ in pickletools.genops(stream):
            name = opcode.name
            if name in _LITERALS:
                self._stack.append(argument)
            elif name in _CONSTANTS:
                self._stack.append(_CONSTANTS[name]())
            elif name == "STOP":
                return self._stack.pop()
            elif name not in _IGNORED:
                step = _STEPS.get(name)
                if step is None:
                    raise UnsafePickleError(f"the pickle instruction {name}")
                step(self, argument)
        raise EOFError("the pickle has no end")

    def _marked(self) -> list[Any]:
        """Takes everything above the last mark off the stack."""
        at = max(number for number, item in enumerate(self._stack) if isinstance(item, Mark))
        items = self._stack[at + 1 :]
        del self._stack[at:]
        return items

    def _name(self, path: str) -> Name:
        listed = any(path == entry or path.startswith(f"{entry}.") for entry in self._settings)
        if not (listed or path in self._builders or path in self._names):
            raise UnsafePickleError(path)
        return Name(path)

    def _call(self, called: Any, arguments: Any) -> Any:
        if not isinstance(called, Name) or not isinstance(arguments, tuple):
            raise TypeError("a call of something that is not a name")
        if called.path in self._builders:
            return self._builders[called.path](*arguments)
        if called.path in self._names:
            raise UnsafePickleError(f"a call of {called.path}")
        return Record(called.path, arguments)

    def _build(self) -> None:
        """Gives the object below its state: to settings and arrays only; a dictionary has none (torch hangs the version
        of its layout there)."""
        state = self._stack.pop()
        target = self._stack[-1]
        if isinstance(target, (_Array, _DType)):
            target.set_state(state)
        elif isinstance(target, Record):
            target.state = state
        elif not isinstance(target, dict):
            raise UnsafePickleError(f"attributes for a {type(target).__name__}")

    def _append(self, elements: list[Any]) -> None:
        target = self._stack[-1]
        (target.elements if isinstance(target, Record) else _of_type(target, list)).extend(elements)

    def _set_items(self, items: list[Any]) -> None:
        target = self._stack[-1]
        content = target.items if isinstance(target, Record) else _of_type(target, dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            content[_key(key)] = value

    def _add(self, elements: list[Any]) -> None:
        _of_type(self._stack[-1], set).update(map(_key, elements))

    def _pop(self, count: int) -> tuple[Any, ...]:
        if count > len(self._stack):
            raise IndexError("the pickle takes more than it has")
        items = tuple(self._stack[len(self._stack) - count :])
        del self._stack[len(self._stack) - count :]
        return items

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _load_persistent(self, identity: Any) -> Any:
        if self._persistent is None:
            raise UnsafePickleError("a persistent object")
        return self._persistent(identity)

    def _remember(self, index: int | None) -> None:
        self._memo[len(self._memo) if index is None else index] = self._stack[-1]


def _of_type(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"a {type(value).__name__} where a {kind.__name__} should be")
    return value


def _key(value: Any) -> Any:
    """A key of a dictionary or an element of a set: text, a number, or a flat tuple of these. A name becomes its text:
    Lightning before 1.5 files the states of callbacks under their classes."""
    if isinstance(value, Name):
        return value.path
    if isinstance(value, tuple) and not any(isinstance(part, tuple) for part in value):
        return tuple(_key(part) for part in value)
    if value is None or isinstance(value, (str, bytes, int, float)):
        return value
    raise TypeError(f"a {type(value).__name__} as a key")


def _stack_global(machine: Machine) -> Name:
    module, name = machine._pop(2)
    return machine._name(_spelt(_of_type(module, str), _of_type(name, str)))


def _global(machine: Machine, argument: str) -> Name:
    module, _, name = argument.partition(" ")
    return machine._name(_spelt(module, name))


def _call_marked(machine: Machine) -> Any:
    items = machine._marked()
    return machine._call(items[0], tuple(items[1:]))


def _dict(items: list[Any]) -> dict[Any, Any]:
    return {_key(key): value for key, value in zip(items[::2], items[1::2], strict=True)}


_LITERALS = frozenset(
    (
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
        *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    )
)
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
    "MARK": Mark,
}
_IGNORED = frozenset(("PROTO", "FRAME"))

_STEPS: dict[str, Callable[[Machine, Any], Any]] = {
    "POP": lambda m, _: m._pop(1),
    "POP_MARK": lambda m, _: m._marked(),
    "DUP": lambda m, _: m._push(m._stack[-1]),
    "TUPLE1": lambda m, _: m._push(m._pop(1)),
    "TUPLE2": lambda m, _: m._push(m._pop(2)),
    "TUPLE3": lambda m, _: m._push(m._pop(3)),
    "TUPLE": lambda m, _: m._push(tuple(m._marked())),
    "LIST": lambda m, _: m._push(m._marked()),
    "DICT": lambda m, _: m._push(_dict(m._marked())),
    "FROZENSET": lambda m, _: m._push(_set(m._marked())),
    "APPEND": lambda m, _: m._append(list(m._pop(1))),
    "APPENDS": lambda m, _: m._append(m._marked()),
    "SETITEM": lambda m, _: m._set_items(list(m._pop(2))),
    "SETITEMS": lambda m, _: m._set_items(m._marked()),
    "ADDITEMS": lambda m, _: m._add(m._marked()),
    "GLOBAL": lambda m, argument: m._push(_global(m, argument)),
    "STACK_GLOBAL": lambda m, _: m._push(_stack_global(m)),
    "REDUCE": lambda m, _: m._push(m._call(*m._pop(2))),
    "NEWOBJ": lambda m, _: m._push(m._call(*m._pop(2))),
    "OBJ": lambda m, _: m._push(_call_marked(m)),
    "INST": lambda m, argument: m._push(m._call(_global(m, argument), tuple(m._marked()))),
    "BUILD": lambda m, _: m._build(),
    "PERSID": lambda m, argument: m._push(m._load_persistent(argument)),
    "BINPERSID": lambda m, _: m._push(m._load_persistent(*m._pop(1))),
    "GET": lambda m, index: m._push(m._memo[index]),
    "BINGET": lambda m, index: m._push(m._memo[index]),
    "LONG_BINGET": lambda m, index: m._push(m._memo[index]),
    "PUT": lambda m, index: m._remember(index),
    "BINPUT": lambda m, index: m._remember(index),
    "LONG_BINPUT": lambda m, index: m._remember(index),
    "MEMOIZE": lambda m, _: m._remember(None),
}


def plain(value: Any) -> Any:
    """What a machine has read, as dictionaries, lists, tuples, arrays and what the builders made; a settings object
    becomes the dictionary of its attributes (or its content), a name its text. Raises `ValueError` for an object that
    holds itself."""
    return _plain(value, {})


_OPEN = object()


def _plain(value: Any, done: dict[int, Any]) -> Any:
    if isinstance(value, _Array):
        return _of_type(value.value, np.ndarray)
    if isinstance(value, Name):
        return value.path
    if not isinstance(value, (dict, list, tuple, Record)):
        return value
    known = done.get(id(value))
    if known is _OPEN:
        raise ValueError("an object that holds itself")
    if known is None:
        done[id(value)] = _OPEN
        known = done[id(value)] = _converted(value, done)
    return known


def _converted(value: Any, done: dict[int, Any]) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item, done) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(item, done) for item in value)
    state = value.state
    if isinstance(state, tuple):  # (attributes, slots)
        state = {key: item for part in state if isinstance(part, dict) for key, item in part.items()}
    state = state if isinstance(state, dict) else {}
    if "_content" in state:  # an OmegaConf container; its other attributes lead back to the container around it
        return _plain(state["_content"], done)
    if "_val" in state:  # an OmegaConf value
        return _plain(state["_val"], done)
    if value.items:
        return _plain(value.items, done)
    if value.elements:
        return _plain(value.elements, done)
    return _plain(state or dict(enumerate(value.arguments)), done)


def refusal(path: Path, error: Exception) -> CheckpointError:
    """The sentence for a file that cannot be read: unsafe, or damaged."""
    if isinstance(error, UnsafePickleError):
        return CheckpointError(
            f"{path} asks for {error}, which is more than arrays and plain containers, so it was not read (nothing in "
            "it was run); ask its publisher for a file of weights alone"
        )
    return CheckpointError(
        f"{path} is cut off, damaged or not a checkpoint ({type(error).__name__}: {error}); copy it again"
    )
