"""`cupola weights list|get|convert|verify`, and a network by name."""

import json
import pickle
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from depthg_files import random_parts, save_published
from file_server import Serving, server
from published_files import STEM, torchvision_state, write_detectron2, write_lightning, write_pickle
from torchvision.models.optical_flow import raft_small

import cupola
import cupola.weights.command as command
import cupola.weights.finding as finding
import cupola.weights.known as known_module
from cupola.cli import main
from cupola.correspondence.raft.weights import read_raft
from cupola.errors import CheckpointError, ConfigError, DownloadError
from cupola.io import content_hash, read_checkpoint, write_rgb
from cupola.models import PretrainedNetwork, load_network, read_published
from cupola.semantics.backbones.weights import read_weights
from cupola.semantics.depthg.checkpoint import read_depthg
from cupola.weights import KNOWN
from cupola.weights.cache import cache_folder, path_of, read_record, weights_folder
from cupola.weights.known import find_known, known


def entry_named(name):
    return next(entry for entry in KNOWN if entry.name == name)


def test_the_table_is_sound():
    names = [word for entry in KNOWN for word in (entry.name, entry.file)]
    assert len(set(names)) == len(names)
    for entry in KNOWN:
        assert entry.page.startswith("https://")
        assert entry.licence
        assert entry.url is None or (entry.url.startswith("https://") and entry.url.endswith(f"/{entry.file}"))
        if entry.sha256:
            assert len(entry.sha256) == 64
            assert f"-{entry.sha256[:8]}." in entry.file  # as torchvision names its files


def test_names():
    assert known("cups") == known("cups.ckpt") == entry_named("cups")
    assert find_known("nothing") is None
    with pytest.raises(ConfigError, match=r"no known weights `cupz`; did you mean cups\?"):
        known("cupz")


def test_where_the_cache_is(monkeypatch, tmp_path, cache):
    assert cache_folder() == cache
    monkeypatch.delenv("CUPOLA_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "cupola"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "cupola"


def test_list_shows_what_is_here(capsys):
    path = path_of(entry_named("smurf"))
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x")
    assert main(["weights", "list"]) == 0
    text = capsys.readouterr().out
    assert text.count("here     no") == len(KNOWN) - 1
    assert str(path) in text
    for entry in KNOWN:
        assert f"  {entry.name}: " in text
        assert entry.licence in text


@pytest.fixture
def served(monkeypatch):
    """A function that lets a server on this machine publish a known file."""
    running = []

    def publish(name, content, **changes):
        context = server(Serving(content))
        serving = context.__enter__()
        running.append(context)
        entry = replace(entry_named(name), url=serving.url, **changes)
        table = tuple(entry if old.name == name else old for old in KNOWN)
        for module in (known_module, command, finding):
            monkeypatch.setattr(module, "KNOWN", table)
        return serving

    yield publish
    for context in running:
        context.__exit__(None, None, None)


def test_get(served, capsys, tmp_path):
    served("smurf", b"weights")
    assert main(["weights", "get", "smurf"]) == 0
    path = weights_folder() / "raft_smurf.pt"
    assert path.read_bytes() == b"weights"
    text = capsys.readouterr().out
    assert str(path) in text
    assert "recorded" in text
    assert "licence" in text
    assert cupola.get_weights(["raft_smurf.pt"], out=tmp_path)[0].path == tmp_path / "raft_smurf.pt"


def test_get_holds_a_known_hash(served, capsys):
    served("raft-small", b"weights")
    assert main(["weights", "get", "raft-small"]) == 2
    assert entry_named("raft-small").sha256 in capsys.readouterr().err
    assert list(weights_folder().iterdir()) == []


def test_get_checks_all_names_before_the_first_is_fetched(served):
    serving = served("smurf", b"weights")
    with pytest.raises(ConfigError, match="no known weights `nothing`"):
        cupola.get_weights(["smurf", "nothing"])
    assert serving.asked == []


def test_get_what_only_a_person_can_fetch(capsys):
    assert main(["weights", "get", "u2seg"]) == 2
    text = capsys.readouterr().err
    assert "https://github.com/u2seg/U2Seg" in text
    assert str(path_of(entry_named("u2seg"))) in text
    assert len(text.strip().splitlines()) == 1


def test_verify(served, capsys, tmp_path):
    path = tmp_path / "raft_smurf.pt"
    torch.save(raft_small().state_dict(), path)
    served("smurf", path.read_bytes())
    assert cupola.verify_weights() == []
    cupola.get_weights(["smurf"])
    (found,) = cupola.verify_weights("smurf")
    assert (found.held_to, found.content) == ("recorded", "raft")
    assert found.sha256 == content_hash(path)
    assert cupola.verify_weights() == [found]
    assert cupola.verify_weights(str(path))[0].held_to == "nothing"
    assert main(["weights", "verify"]) == 0
    assert "whole, raft" in capsys.readouterr().out
    mine = path_of(entry_named("smurf"))
    mine.write_bytes(mine.read_bytes()[:-1] + b"x")
    assert main(["weights", "verify", "smurf"]) == 2
    assert "is not what was fetched" in capsys.readouterr().err


def test_verify_a_known_hash_a_damaged_file_and_nothing(tmp_path):
    small = tmp_path / "raft_small_C_T_V2-01064c6d.pth"
    small.write_bytes(b"x")
    with pytest.raises(CheckpointError, match="is not what was published"):
        cupola.verify_weights(str(small))
    (tmp_path / "x.pth").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"x\.pth"):
        cupola.verify_weights(str(tmp_path / "x.pth"))
    with pytest.raises(CheckpointError, match="cups was not fetched"):
        cupola.verify_weights("cups")
    with pytest.raises(ConfigError, match="no known weights `nowhere`"):
        cupola.verify_weights("nowhere")


def test_convert_a_network(tmp_path, capsys):
    write_lightning(tmp_path / "cups.ckpt", 5, 22)
    out = tmp_path / "net"
    assert main(["weights", "convert", str(tmp_path / "cups.ckpt"), "--out", str(out)]) == 0
    assert "student with 5 thing and 22 stuff pseudo classes, named by cityscapes19" in capsys.readouterr().out
    network, card = load_network(out)
    expected = read_published(tmp_path / "cups.ckpt")
    ours, theirs = network.state_dict(), expected.network.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    source = card["source"]
    assert (source["name"], source["file"], source["sha256"]) == (
        "cups",
        "cups.ckpt",
        content_hash(tmp_path / "cups.ckpt"),
    )
    assert source["url"] == entry_named("cups").url
    assert card["figures"][0].startswith("PQ 27.8")
    text = (out / "README.md").read_text()
    for line in ("- licence: not stated", "- 22: person (thing)", "PQ 27.8", source["sha256"], "never for training"):
        assert line in text
    (verified,) = cupola.verify_weights(str(out))
    assert verified.content == "network of 5 thing and 22 stuff pseudo classes"
    assert main(["weights", "convert", str(tmp_path / "cups.ckpt"), "--out", str(out)]) == 0
    assert main(["weights", "convert", str(tmp_path / "cups.ckpt"), "--out", str(out), "--which", "teacher"]) == 2
    assert "holds another network already" in capsys.readouterr().err


def test_convert_a_backbone(tmp_path):
    """The pickle, in torchvision's names then, is read by whatever reads a backbone."""
    state = write_pickle(tmp_path / "dino_RN50_pretrain_d2_format.pkl")
    found = cupola.convert_weights(tmp_path / "dino_RN50_pretrain_d2_format.pkl", out=tmp_path / "out")
    assert found.kind == "backbone"
    file, page = found.files
    read = read_weights(file)
    assert read["conv1.weight"].shape == (STEM, 3, 7, 7)
    assert torch.equal(read["layer1.0.downsample.1.running_var"], state["res2.0.shortcut.norm.running_var"])
    assert len(read) == len(state)
    assert "CC BY-NC-SA 4.0" in page.read_text()
    _, named = torchvision_state(classifier=True)
    torch.save(named, tmp_path / "own.pth")
    found = cupola.convert_weights(tmp_path / "own.pth", out=tmp_path / "out")
    assert found.ignored == ("fc.bias", "fc.weight")
    assert "unknown; ask its publisher" in found.files[1].read_text()


def test_convert_raft_depthg_and_a_transformer(tmp_path):
    torch.save(raft_small().state_dict(), tmp_path / "flow.pth")
    found = cupola.convert_weights(tmp_path / "flow.pth", out=tmp_path / "out")
    assert found.kind == "raft"
    assert read_raft(found.files[0])[0] == read_raft(tmp_path / "flow.pth", cache=tmp_path / "out")[0]

    parts = random_parts()
    save_published(tmp_path / "depthg.ckpt", *parts)
    found = cupola.convert_weights(tmp_path / "depthg.ckpt", out=tmp_path / "out")
    assert (found.kind, found.about) == ("depthg", "DepthG with 5 pseudo classes")
    assert torch.equal(read_depthg(found.files[0]).probe.clusters, parts[2].clusters)

    state = parts[0].network.state_dict()
    torch.save({"teacher": {f"backbone.{name}": value for name, value in state.items()}}, tmp_path / "vit.pth")
    found = cupola.convert_weights(tmp_path / "vit.pth", out=tmp_path / "out")
    assert found.kind == "transformer"
    assert all(torch.equal(read_checkpoint(found.files[0])[name], value) for name, value in state.items())


@pytest.mark.parametrize(
    ("content", "message"),
    [({"model": {"encoder.w": torch.zeros(1)}}, "no weights that cupola knows, but encoder.w"), ([3], "but a list")],
)
def test_convert_something_else(tmp_path, capsys, content, message):
    torch.save(content, tmp_path / "x.pth")
    assert main(["weights", "convert", str(tmp_path / "x.pth"), "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_convert_what_asks_for_code_or_is_missing(tmp_path, capsys):
    (tmp_path / "x.pth").write_bytes(pickle.dumps({"model": print}))
    assert main(["weights", "convert", str(tmp_path / "x.pth"), "--out", str(tmp_path / "out")]) == 2
    assert "builtins.print" in capsys.readouterr().err
    assert main(["weights", "convert", str(tmp_path / "y.pth"), "--out", str(tmp_path / "out")]) == 2
    assert "does not exist" in capsys.readouterr().err


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 255, (64, 96, 3)).astype(np.uint8)


def test_load_a_published_file(tmp_path, image):
    write_lightning(tmp_path / "cups.ckpt", 5, 22)
    predictor = cupola.load(tmp_path / "cups.ckpt", threshold=0.1)
    assert predictor.classes.names[22:] == ("person", "car", "bicycle", "bus", "truck")
    assert predictor.classes.names[18] == "class 18"
    assert predictor(image).panoptic.classes.shape == image.shape[:2]


def test_load_a_known_name_fetches_and_converts_once(served, tmp_path, image, monkeypatch):
    write_detectron2(tmp_path / "cutler_cascade_final.pth", 1, 0, semantic=False)
    serving = served("cutler-cascade", (tmp_path / "cutler_cascade_final.pth").read_bytes())
    predictor = cupola.load("cutler-cascade", threshold=0.1)
    assert predictor.classes.things == (0,)
    assert all(segment.is_thing for segment in predictor(image).segments)
    assert len(serving.asked) == 1
    digest = read_record(weights_folder() / "cutler_cascade_final.pth").sha256
    directory = cache_folder() / "networks" / f"cutler-cascade-{digest[:8]}"
    assert (directory / "README.md").exists()
    monkeypatch.setattr(finding, "convert", None)
    cupola.load("cutler-cascade")
    assert len(serving.asked) == 1


def test_load_a_repository_and_predict_with_it(tmp_path, image, monkeypatch, capsys):
    write_lightning(tmp_path / "x.ckpt", 2, 3)
    published = read_published(tmp_path / "x.ckpt")
    commit = "0" * 40
    folder = cache_folder() / "hf" / "models--someone--streets"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    PretrainedNetwork(published.network, published.card).save_pretrained(folder / "snapshots" / commit)
    assert cupola.load("someone/streets").classes.things == (3, 4)
    write_rgb(tmp_path / "a.png", image)
    arguments = ["predict", str(tmp_path / "a.png"), "--model", "someone/streets", "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    assert json.loads((tmp_path / "out" / "panoptic.json").read_text())["annotations"]


def test_a_path_goes_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_lightning(tmp_path / "x.ckpt", 2, 3)
    cupola.convert_weights(tmp_path / "x.ckpt", out=tmp_path / "cups")
    assert cupola.load("cups").classes.things == (3, 4)
    assert cupola.load(tmp_path / "cups" / "model.safetensors").classes.things == (3, 4)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "nowhere does not exist; give the directory of a trained network, one of cups, cutler-cascade"),
        ("runs/net/deep", "does not exist"),
        ("runs/net", "there is no directory runs/net, and the Hugging Face hub cannot be reached"),
        ("depthg", "no panoptic network; networks are cups"),
        ("u2seg", "no address that a program can fetch"),
    ],
)
def test_a_name_that_leads_nowhere(name, message, tmp_path, image, capsys):
    write_rgb(tmp_path / "a.png", image)
    assert main(["predict", str(tmp_path / "a.png"), "--model", name, "--out", str(tmp_path / "out")]) == 2
    text = capsys.readouterr().err
    assert message in text
    assert len(text.strip().splitlines()) == 1


def test_a_known_name_offline_says_where_to_put_the_file(monkeypatch):
    import socket

    def no_name(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_name)
    with pytest.raises(DownloadError) as raised:
        cupola.load("cups")
    assert str(path_of(entry_named("cups"))) in str(raised.value)


def test_looking_at_the_list_needs_no_torch():
    code = "import sys, cupola; cupola.list_weights(); print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_the_verb_alone_says_what_there_is(capsys):
    assert main(["weights"]) == 2
    text = capsys.readouterr().err
    for verb in ("list", "get", "convert", "verify"):
        assert f"`cupola weights {verb}`" in text
