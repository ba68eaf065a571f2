"""Networks on disk: they come back the same, and every kind of damage is one clear error."""

import json

import pytest
import torch

from cupola.config import plain
from cupola.errors import CheckpointError
from cupola.models import NetworkSettings, PanopticNetwork, load_network, paper, save_network, small, tiny
from cupola.models.checkpoint import CARD, WEIGHTS, settings_from


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    network = PanopticNetwork(tiny(), 2, 3)
    network.backbone.bottom_up.stem.conv1.norm.running_mean += 1
    save_network(tmp_path / "net", network, {"things": [4, 1], "stuff": (0, 2, 3)})
    return network, tmp_path / "net"


def test_round_trip(saved):
    network, directory = saved
    again, card = load_network(directory)
    assert card == {"things": [4, 1], "stuff": [0, 2, 3]}
    assert again.settings == network.settings
    assert not again.training
    image = torch.rand(3, 64, 96)
    (first,), (second,) = network.predict([image], score_threshold=0.3), again.predict([image], score_threshold=0.3)
    assert torch.equal(first.semantic, second.semantic)
    assert torch.equal(first.boxes, second.boxes)
    assert all(
        torch.equal(a, b) for a, b in zip(network.state_dict().values(), again.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("preset", [paper, small, tiny])
def test_settings_survive_json(preset):
    assert settings_from(NetworkSettings, json.loads(json.dumps(plain(preset())))) == preset()


def change(directory, **values):
    path = directory / CARD
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_card_without_an_architecture_is_a_cascade(saved):
    network, directory = saved
    content = json.loads((directory / CARD).read_text())
    assert content.pop("architecture") == "cascade"
    (directory / CARD).write_text(json.dumps(content))
    again, _ = load_network(directory)
    assert isinstance(again, PanopticNetwork)
    assert again.settings == network.settings


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / WEIGHTS).unlink(), "does not exist"),
        (lambda d: (d / CARD).unlink(), "give the directory of a trained network"),
        (lambda d: (d / WEIGHTS).write_bytes((d / WEIGHTS).read_bytes()[:-100]), "is damaged"),
        (lambda d: (d / WEIGHTS).write_bytes(b""), "is damaged"),
        (lambda d: (d / CARD).write_text("{"), "cannot be read as JSON"),
        (lambda d: (d / CARD).write_text("[]"), "is not the card of a network"),
        (lambda d: change(d, num_things=3), "3 thing and 3 stuff classes"),
        (lambda d: change(d, num_things=0), "unknown parameter"),
        (lambda d: change(d, num_stuff="many"), "does not describe a network"),
        (lambda d: change(d, settings={"depth": 3}), "no setting 'depth'"),
        (lambda d: change(d, architecture="pyramid"), "no architecture 'pyramid', known are cascade"),
        (lambda d: change(d, format=99), "later cupola"),
    ],
)
def test_damage_is_one_clear_error(saved, damage, message):
    _, directory = saved
    damage(directory)
    with pytest.raises(CheckpointError, match=message) as raised:
        load_network(directory)
    assert "\n" not in str(raised.value)


def test_missing_parameter_is_named(saved):
    network, directory = saved
    del network.sem_seg_head.predictor
    save_network(directory, network, {})
    with pytest.raises(CheckpointError, match=r"misses parameter sem_seg_head\.predictor\.bias"):
        load_network(directory)
