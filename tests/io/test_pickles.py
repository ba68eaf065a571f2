"""Published checkpoints read as data: what torch and numpy wrote comes back, and nothing in a file is ever run."""

import argparse
import collections
import contextlib
import io
import os
import pickle
import pickletools
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cupola.errors import CheckpointError
from cupola.io import read_checkpoint
from cupola.io.pickles import SETTINGS, Machine, plain

plain_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.binary(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=4) | st.integers(), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(value=plain_values, protocol=st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_plain_containers_come_back_in_every_protocol(value, protocol):
    assert plain(Machine().read(io.BytesIO(pickle.dumps(value, protocol)))) == value


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("dtype", ["f4", ">f4", "f8", "i8", "u1", "?", "c8"])
def test_numpy_arrays_come_back(tmp_path, protocol, dtype):
    array = (np.arange(6).reshape(2, 3) % 2).astype(dtype)
    content = {"model": {"a": array, "fortran": np.asfortranarray(array)}, "scalar": array[1, 0], "set": {1, 2}}
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps(content, protocol))
    found = read_checkpoint(path)
    np.testing.assert_array_equal(found["model"]["a"], array)
    np.testing.assert_array_equal(found["model"]["fortran"], array)
    assert found["scalar"] == array[1, 0]
    assert found["set"] == {1, 2}


def test_names_of_older_numpy_and_python_are_known(tmp_path):
    """detectron2's published pickles: `numpy.core`, bytes by way of `_codecs.encode`."""
    path = tmp_path / "old.pkl"
    content = pickle.dumps({"w": np.arange(3, dtype="f4")}, 2)
    path.write_bytes(content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert b"numpy.core.multiarray" in path.read_bytes()
    np.testing.assert_array_equal(read_checkpoint(path)["w"], np.arange(3, dtype="f4"))


def state():
    base = torch.arange(12, dtype=torch.float32)
    return collections.OrderedDict(
        [
            ("whole", base.reshape(3, 4)),
            ("view", base[4:8]),
            ("turned", base.reshape(3, 4).t()),
            ("half", torch.ones(2, dtype=torch.bfloat16)),
            ("scalar", torch.tensor(7)),
            ("nothing", torch.zeros(0)),
            ("parameter", torch.nn.Parameter(torch.full((2,), 3.0))),
            ("flags", torch.tensor([True, False])),
        ]
    )


@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files_come_back(tmp_path, zipped):
    path = tmp_path / "weights.pt"
    content = {"state_dict": state(), "epoch": 3, "size": torch.Size([2, 3]), "type": torch.float16}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    found = read_checkpoint(path)
    assert found["epoch"] == 3
    assert found["size"] == (2, 3)
    assert found["type"] == "torch.float16"
    assert list(found["state_dict"]) == list(state())
    for name, tensor in state().items():
        assert found["state_dict"][name].dtype == tensor.dtype
        assert torch.equal(found["state_dict"][name], tensor)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_module_s_own_state_dict_comes_back(tmp_path, zipped):
    """With the `_metadata` that torch hangs on the dictionary."""
    module = torch.nn.BatchNorm2d(3)
    torch.save(module.state_dict(), tmp_path / "m.pt", _use_new_zipfile_serialization=zipped)
    found = read_checkpoint(tmp_path / "m.pt")
    assert type(found) is dict
    assert found.keys() == module.state_dict().keys()


class Runs:
    """Pickles into a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


MARK = Path("executed")


def attacks():
    touch = f"touch {MARK}"
    nested = pickle.dumps(Runs(os.system, touch))
    yield "posix.system", Runs(os.system, touch)
    yield "builtins.eval", Runs(eval, f"open({str(MARK)!r}, 'w')")
    yield "os.popen", Runs(os.popen, touch)
    yield "builtins.getattr", Runs(getattr, "text", "system")
    yield "pickle.loads", Runs(pickle.loads, nested)
    yield "numpy.load", Runs(np.load, "file", None, True)
    yield "torch.serialization.load", Runs(torch.load, "file")
    yield "torch.storage._load_from_bytes", Runs(torch.storage._load_from_bytes, nested)
    yield "type 'O8'", np.array([{}], dtype=object)
    yield "posix.system", np.array([Runs(os.system, touch)], dtype=object)
    yield "posix.system", {"state_dict": {"w": [({"deep": Runs(os.system, touch)},)]}}
    yield "posix.system", [1.0, Runs(os.system, touch)]
    yield "argparse.Namespace", argparse.Namespace(a=1)
    yield "builtins.list", Runs(list, (1, 2))


@pytest.mark.parametrize(("name", "content"), attacks(), ids=lambda value: value if isinstance(value, str) else "")
@pytest.mark.parametrize("form", ["pickle", "zip", "legacy"])
def test_whatever_is_not_data_is_refused_by_name(tmp_path, monkeypatch, name, content, form):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pt"
    if form == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(CheckpointError) as error:
        read_checkpoint(path)
    assert name in str(error.value).replace("nt.system", "posix.system")
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / MARK).exists()


@pytest.mark.parametrize(
    "program",
    [
        b"cos\nsystem\n(S'touch executed'\ntR.",  # protocol 0
        b"(S'touch executed'\nios\nsystem\n.",  # INST
        b"(cos\nsystem\nS'touch executed'\no.",  # OBJ
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x01x\x85R.",  # STACK_GLOBAL
        b"\x80\x04\x8c\x0bcollections\x8c\x1fOrderedDict.__init__.__globals__\x93.",  # a dotted name
        b"\x80\x02ccollections\nOrderedDict\n}X\x08\x00\x00\x00__init__K\x01sb.",  # attributes for a class
        b"\x80\x02\x82\x01.",  # EXT1: copyreg's table of extensions
        b"\x80\x02U\x01xQ.",  # a persistent object where there are none
    ],
)
def test_every_instruction_that_could_call_is_refused(tmp_path, monkeypatch, program):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.pkl").write_bytes(program)
    with pytest.raises(CheckpointError):
        read_checkpoint(tmp_path / "evil.pkl")
    assert not (tmp_path / MARK).exists()


def test_attributes_are_given_to_nothing_of_ours(tmp_path):
    """BUILD on what a file only named must not reach the reader's own functions."""
    program = b"\x80\x02c_codecs\nencode\n(N}X\x0c\x00\x00\x00__defaults__)stb."
    (tmp_path / "evil.pkl").write_bytes(program)
    with pytest.raises(CheckpointError, match="attributes for a Name"):
        read_checkpoint(tmp_path / "evil.pkl")


@given(cut=st.floats(0, 0.999), form=st.sampled_from(["pickle", "zip", "legacy"]))
@settings(max_examples=30, deadline=None)
def test_a_cut_file_is_one_sentence(tmp_path_factory, cut, form):
    path = tmp_path_factory.mktemp("cut") / "weights.pt"
    if form == "pickle":
        path.write_bytes(pickle.dumps({"w": np.arange(50.0)}))
    else:
        torch.save(state(), path, _use_new_zipfile_serialization=form == "zip")
    content = path.read_bytes()
    path.write_bytes(content[: int(cut * len(content))])
    with pytest.raises(CheckpointError, match=str(path)):
        read_checkpoint(path)


@given(seed=st.integers(0, 10**6), form=st.sampled_from(["pickle", "zip", "legacy"]))
@settings(max_examples=60, deadline=None)
def test_noise_in_a_file_is_an_error_or_other_numbers(tmp_path_factory, seed, form):
    """Never another exception."""
    path = tmp_path_factory.mktemp("noise") / "weights.pt"
    if form == "pickle":
        path.write_bytes(pickle.dumps({"w": np.arange(5.0), "x": [1, "two", (3.0,)]}))
    else:
        torch.save(state(), path, _use_new_zipfile_serialization=form == "zip")
    rng = np.random.default_rng(seed)
    content = bytearray(path.read_bytes())
    for place in rng.integers(0, len(content), 3):
        content[place] = rng.integers(256)
    path.write_bytes(bytes(content))
    with contextlib.suppress(CheckpointError):
        read_checkpoint(path)


def tensor_of(path, size, stride, offset=0, count=4):
    """A zip file whose tensor claims this geometry over a storage of four floats."""
    torch.save(torch.arange(4.0), path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    pickled = next(name for name in entries if name.endswith("data.pkl"))
    for opcode, argument, _ in pickletools.genops(entries[pickled]):
        assert opcode.name != "GLOBAL" or "torch" in argument or "OrderedDict" in argument

    def ints(values):
        return b"(" + b"".join(b"J" + int(v).to_bytes(4, "little", signed=True) for v in values) + b"t"

    program = (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000"
        b"X\x03\x00\x00\x00cpuJ" + count.to_bytes(4, "little") + b"tQJ" + offset.to_bytes(4, "little", signed=True)
        + ints(size) + ints(stride) + b"\x89}tR."
    )  # fmt: skip
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, program if name == pickled else content)


def test_the_forged_file_is_read_where_it_is_honest(tmp_path):
    tensor_of(tmp_path / "t.pt", [2, 2], [2, 1])
    assert read_checkpoint(tmp_path / "t.pt").tolist() == [[0, 1], [2, 3]]


@pytest.mark.parametrize(
    ("size", "stride", "offset", "count"),
    [([5], [1], 0, 4), ([4], [1], 1, 4), ([2, 2], [3, 1], 0, 4), ([4], [-1], 3, 4), ([4], [1], -1, 4),
     ([1000000, 1000], [0, 0], 0, 4), ([8], [1], 0, 8)],
)  # fmt: skip
def test_a_tensor_stays_within_its_values(tmp_path, size, stride, offset, count):
    tensor_of(tmp_path / "t.pt", size, stride, offset, count)
    with pytest.raises(CheckpointError, match="damaged"):
        read_checkpoint(tmp_path / "t.pt")


def test_values_that_are_not_there_take_no_memory(tmp_path):
    """A legacy file of some hundred bytes that claims 2^40 floats."""
    torch.save({"w": torch.zeros(300)}, tmp_path / "t.pt", _use_new_zipfile_serialization=False)
    content = (tmp_path / "t.pt").read_bytes()
    forged = content.replace(b"M\x2c\x01Ntq", b"\x8a\x06\x00\x00\x00\x00\x00\x01Ntq")
    assert forged != content
    (tmp_path / "t.pt").write_bytes(forged)
    with pytest.raises(CheckpointError, match="values of a tensor are missing"):
        read_checkpoint(tmp_path / "t.pt")


def test_named_settings_become_dictionaries(tmp_path):
    content = {"args": argparse.Namespace(lr=0.1, stages=["chairs"]), "w": torch.ones(2)}
    torch.save(content, tmp_path / "t.pt")
    found = read_checkpoint(tmp_path / "t.pt", settings=["argparse.Namespace"])
    assert found["args"] == {"lr": 0.1, "stages": ["chairs"]}
    assert torch.equal(found["w"], torch.ones(2))


@pytest.fixture
def foreign(monkeypatch):
    """Classes as the named libraries define them, gone again when the file is read."""

    def make(path, base, **members):
        module_name, _, name = path.rpartition(".")
        made = type(name, (base,), {"__module__": module_name, **members})
        parts = module_name.split(".")
        for end in range(1, len(parts) + 1):
            monkeypatch.setitem(sys.modules, ".".join(parts[:end]), types.ModuleType(".".join(parts[:end])))
        setattr(sys.modules[module_name], name, made)
        return made

    return make


def test_omegaconf_settings_become_dictionaries(tmp_path, foreign):
    """A container holds nodes, which point back to it."""
    container = foreign("omegaconf.dictconfig.DictConfig", object)
    sequence = foreign("omegaconf.listconfig.ListConfig", object)
    node = foreign("omegaconf.nodes.AnyNode", object)
    metadata = foreign("omegaconf.base.ContainerMetadata", object)

    def filled(cls, **attributes):
        made = cls()
        made.__dict__.update(attributes)
        return made

    root = filled(container, _metadata=filled(metadata, ref_type=dict, optional=True), _parent=None)
    root._content = {
        "dim": filled(node, _val=70, _parent=root),
        "crops": filled(sequence, _parent=root, _content=[filled(node, _val="five", _parent=root)]),
    }
    torch.save({"hyper_parameters": {"n_classes": 27, "cfg": root}, "w": torch.ones(1)}, tmp_path / "depthg.ckpt")
    found = read_checkpoint(tmp_path / "depthg.ckpt", settings=SETTINGS)
    assert found["hyper_parameters"] == {"n_classes": 27, "cfg": {"dim": 70, "crops": ["five"]}}


def test_yacs_settings_become_dictionaries(tmp_path, foreign):
    node = foreign("yacs.config.CfgNode", dict)
    config = node(MODEL=node(NAME="x"))
    config.__dict__["__immutable__"] = True
    torch.save({"config": config}, tmp_path / "cups.ckpt")
    assert read_checkpoint(tmp_path / "cups.ckpt", settings=SETTINGS) == {"config": {"MODEL": {"NAME": "x"}}}


def test_an_object_that_holds_itself_is_refused(tmp_path):
    loop = []
    loop.append(loop)
    (tmp_path / "loop.pkl").write_bytes(pickle.dumps(loop))
    with pytest.raises(CheckpointError, match="holds itself"):
        read_checkpoint(tmp_path / "loop.pkl")


def test_a_list_of_lists_of_lists_does_not_explode(tmp_path):
    value = ["lol"]
    for _ in range(100):
        value = [value, value]
    (tmp_path / "laughs.pkl").write_bytes(pickle.dumps(value))
    assert len(read_checkpoint(tmp_path / "laughs.pkl")) == 2


def test_deep_nesting_is_one_sentence(tmp_path):
    (tmp_path / "deep.pkl").write_bytes(b"\x80\x02" + b"]" * 5000 + b"a" * 4999 + b".")
    with pytest.raises(CheckpointError):
        read_checkpoint(tmp_path / "deep.pkl")


@pytest.mark.parametrize("kind", ["bytes", "bytearray"])
def test_a_number_is_not_made_into_so_many_zeros(tmp_path, kind):
    path = tmp_path / "zeros.pkl"
    path.write_bytes(b"cbuiltins\n" + kind.encode() + b"\n(I1000000000000\ntR.")
    with pytest.raises(CheckpointError, match="damaged or not a checkpoint"):
        read_checkpoint(path)


@pytest.mark.parametrize("protocol", range(5))
def test_bytearrays_come_back_as_bytes(tmp_path, protocol):
    path = tmp_path / "bytes.pkl"
    path.write_bytes(pickle.dumps([b"", b"\xff\0a", bytearray(b"\xe9\0")], protocol))
    assert read_checkpoint(path) == [b"", b"\xff\0a", b"\xe9\0"]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"none\.pt does not exist"):
        read_checkpoint(tmp_path / "none.pt")


def test_safetensors_are_read_too(tmp_path):
    from safetensors.torch import save_file

    save_file({"w": torch.ones(2)}, tmp_path / "w.safetensors")
    assert torch.equal(read_checkpoint(tmp_path / "w.safetensors")["w"], torch.ones(2))
    (tmp_path / "w.safetensors").write_bytes((tmp_path / "w.safetensors").read_bytes()[:-3])
    with pytest.raises(CheckpointError, match="damaged"):
        read_checkpoint(tmp_path / "w.safetensors")


def test_the_real_weights_are_what_torch_reads(shared):
    path = shared / "data" / "weights" / "raft-small.pth"
    expected = torch.load(path, map_location="cpu", weights_only=True)
    found = read_checkpoint(path)
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
