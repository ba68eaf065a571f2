"""What a run goes on from: it comes back bit for bit, and what cuts a saving off leaves the one before."""

import resource

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from cupola.errors import DiskError, StoreError
from cupola.io import write_over
from cupola.runs import state
from cupola.runs.state import StateFiles


def learner() -> tuple[nn.Module, torch.optim.Optimizer]:
    """A network with weights in both memory formats, whole numbers and single values, and its optimiser."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, (1, 5)), nn.Flatten(), nn.Linear(8, 1)
    )
    network[0].to(memory_format=torch.channels_last)
    return network, torch.optim.AdamW(network.parameters(), 0.01)


def learn(network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    network(torch.rand(2, 3, 4, 8)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def content(network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    moments = {f"{n}/{k}": v for n, p in network.named_parameters() for k, v in optimizer.state[p].items()}
    return {name: tensor.clone() for name, tensor in (network.state_dict() | moments).items()}


def saved(directory, steps: int) -> list[dict[str, torch.Tensor]]:
    """What was saved after each of some steps."""
    network, optimizer = learner()
    files, contents = StateFiles(directory, "run"), []
    for step in range(1, steps + 1):
        learn(network, optimizer)
        files.save(network, optimizer, {"step": step}, {"own": torch.arange(step) > 1})
        contents.append(content(network, optimizer))
    return contents


def assert_goes_on_after(directory, step: int, contents) -> StateFiles:
    files, (network, optimizer) = StateFiles(directory, "run"), learner()
    facts, task = files.load(network, optimizer)
    assert facts == {"step": step}
    assert torch.equal(task["own"], torch.arange(step) > 1)
    found = content(network, optimizer)
    assert found.keys() == contents[step - 1].keys()
    assert all(torch.equal(tensor, contents[step - 1][name]) for name, tensor in found.items())
    return files


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_the_last_state_comes_back(tmp_path, steps):
    contents = saved(tmp_path, steps)
    assert_goes_on_after(tmp_path, steps, contents)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"run.{turn}.safetensors" for turn in ([1] if steps == 1 else [0, 1])
    ]


def test_nothing_was_saved_yet(tmp_path):
    """Or the first saving was cut off: a file that is new appears whole or not at all."""
    (tmp_path / ".run.1.safetensors.abc.safetensors").write_bytes(b"half")
    assert StateFiles(tmp_path, "run").load(*learner()) is None
    assert not list(tmp_path.iterdir())


@given(share=st.floats(0, 1) | st.floats(0, 0.2))
@settings(max_examples=50, deadline=None)
@example(share=0.0078125)
def test_a_saving_that_was_cut_off_anywhere_leaves_the_one_before(tmp_path_factory, share):
    """A kill: the file begins as the new state and goes on as the old one did."""
    directory = tmp_path_factory.mktemp("run")
    contents = saved(directory, 4)
    path = directory / "run.0.safetensors"
    new = path.read_bytes()
    other = directory / "other"
    saved(other, 2)
    old = (other / "run.0.safetensors").read_bytes()
    place = int(share * len(new))
    path.write_bytes(new[:place] + old[place:])
    whole = place == len(new) or new[place:] == old[place:]
    files = assert_goes_on_after(directory, 4 if whole else 3, contents)
    network, optimizer = learner()
    files.save(network, optimizer, {"step": 5})
    assert StateFiles(directory, "run").load(*learner())[0] == {"step": 5}  # the broken one was written over


def test_a_power_failure_leaves_what_was_put_aside(tmp_path, monkeypatch):
    monkeypatch.setattr(state, "PUT_ASIDE_EVERY", -1.0)
    saved(tmp_path, 2)
    monkeypatch.undo()
    contents = saved(tmp_path / "other", 2)
    for turn in (0, 1):
        (tmp_path / f"run.{turn}.safetensors").write_bytes(bytes(5000))
    files = assert_goes_on_after(tmp_path, 2, contents)
    files.remove()
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_a_full_disk_leaves_the_state_before(tmp_path):
    contents = saved(tmp_path, 3)
    files, (network, optimizer) = StateFiles(tmp_path, "run"), learner()
    files.load(network, optimizer)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(DiskError, match=r"cannot write .*run\.0\.safetensors: File too large; free some space"):
            files.save(network, optimizer, {"step": 4})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert_goes_on_after(tmp_path, 3, contents)


def test_damaged_states_and_those_of_others_are_said(tmp_path):
    saved(tmp_path, 1)
    other = nn.Linear(2, 3)
    with pytest.raises(StoreError, match=r"run\.1\.safetensors does not belong to this run"):
        StateFiles(tmp_path, "run").load(other, torch.optim.AdamW(other.parameters()))
    for nonsense in (b"", b"nonsense", bytes(3000), (1 << 62).to_bytes(8, "little")):
        (tmp_path / "run.1.safetensors").write_bytes(nonsense)
        with pytest.raises(StoreError, match=r"run\.1\.safetensors is damaged, and no other state is there"):
            StateFiles(tmp_path, "run").load(*learner())


def test_writing_over_ends_where_the_new_content_ends(tmp_path):
    for length in (50_000, 20_000, 60_000, 0):
        write_over(tmp_path / "deep" / "file", [b"head", memoryview(bytes(length))], lasting=length > 50_000)
        assert (tmp_path / "deep" / "file").read_bytes() == b"head" + bytes(length)
