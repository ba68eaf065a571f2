"""`cupola train` on a small store: what it writes, going on after a stop, and its errors."""

import json
import os
import re
import resource
import signal
import threading
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from training_doubles import write_store

import cupola
from cupola.cli import _parse, main
from cupola.config import save_config
from cupola.errors import CheckpointError, ConfigError, DiskError, StoreError, TrainingError
from cupola.io import content_hash, write_over
from cupola.models import LossPart, Mask2FormerSettings, PanopticNetwork, VitSettings, load_network, mask2former, tiny
from cupola.models.backbone_files import to_torchvision
from cupola.models.resnet import ResNet
from cupola.models.settings import TrunkSettings
from cupola.models.vit import VitTrunk
from cupola.pseudo_labels import LabelStore
from cupola.runs.metrics import read_metrics
from cupola.semantics.backbones.settings import VitSizes
from cupola.training import BootstrapSettings, OptimizerSettings, SelfLabelSettings, train
from cupola.training.loop import Plan, learning_rate, make_optimizer
from cupola.training.state import Progress, TrainingState

SETTINGS = BootstrapSettings(batch=2, saving_share=1e9, self_labels=SelfLabelSettings(score=0.26))
"""A state after every step; a network of two steps is sure of nothing, so self-labels take what they get."""
STEPS = 6


@pytest.fixture(scope="module")
def labels(tmp_path_factory) -> Path:
    return write_store(tmp_path_factory.mktemp("street"))


@pytest.fixture(scope="module")
def whole(labels, tmp_path_factory):
    """An unbroken run."""
    out = tmp_path_factory.mktemp("whole") / "net"
    return train(labels, out=out, network="tiny", steps=STEPS, settings=SETTINGS)


def losses(out: Path) -> list[dict[str, float]]:
    return [
        {name: value for name, value in line.items() if name not in ("seconds", "waiting")}
        for line in read_metrics(out)
    ]


def test_what_it_writes(whole, labels):
    assert whole.steps == STEPS
    assert whole.frames == whole.objects == 4
    network, card = load_network(whole.out)
    store = LabelStore.open(labels)
    assert card["things"] == list(whole.things) == list(store.things)
    assert card["stuff"] == list(whole.stuff)
    assert (network.num_things, network.num_stuff) == (1, len(store.stuff))
    facts = card["training"]
    assert facts["steps"] == STEPS
    assert facts["labels"]["motion"] == "BrightMoves"
    assert facts["versions"]["torch"] == torch.__version__ or facts["versions"]["torch"] in torch.__version__
    assert [line["step"] for line in read_metrics(whole.out)] == list(range(1, STEPS + 1))
    for line in read_metrics(whole.out):
        parts = {
            n: v
            for n, v in line.items()
            if n not in ("step", "loss", "gradient", "learning_rate", "seconds", "waiting")
        }
        assert sum(parts.values()) == pytest.approx(line["loss"], rel=1e-5)
        assert set(parts) == {"semantic", "rpn_objectness", "rpn_box", "stage0_class", "stage0_box", "mask"}
    config = yaml.safe_load((whole.out / "config.yaml").read_text())
    assert config["steps"] == STEPS
    assert config["settings"]["batch"] == 2
    assert not list(whole.out.glob("training.*"))
    assert (whole.out / "self_labels" / "1" / "index.json").is_file()


def test_the_forward_pass_is_of_the_precision_asked_for(labels, tmp_path):
    full, half = (
        train(labels, out=tmp_path / name, network="tiny", steps=1, settings=replace(SETTINGS, precision=name))
        for name in ("float32", "bfloat16")
    )
    assert full.losses != half.losses
    assert half.losses["loss"] == pytest.approx(full.losses["loss"], rel=0.05)
    for result, name in ((full, "float32"), (half, "bfloat16")):
        assert load_network(result.out)[1]["training"]["precision"] == name


def test_weights_have_been_learnt(whole):
    torch.manual_seed(0)
    network = load_network(whole.out)[0]
    start = PanopticNetwork(tiny(), network.num_things, network.num_stuff).state_dict()
    for name, tensor in load_network(whole.out)[0].state_dict().items():
        assert torch.isfinite(tensor.float()).all()
        assert not torch.equal(tensor, start[name]), name


@pytest.mark.parametrize("after", [1, 3, 5])
def test_a_run_that_was_stopped_goes_on_bit_for_bit(whole, labels, tmp_path, monkeypatch, after):
    """Stopped right after a state was saved, or (at 3) with the self-labels made and one more step lost."""
    real, saved = TrainingState.save, []

    def stop(*arguments):
        real(*arguments)
        saved.append(arguments)
        if len(saved) == after:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TrainingState, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            train(labels, out=tmp_path, network="tiny", steps=STEPS, settings=SETTINGS)
    assert len(read_metrics(tmp_path)) == after
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": after + 1, "loss": 0.0}) + '\n{"step": ')  # a lost step, a torn line
    result = train(labels, out=tmp_path, network="tiny", steps=STEPS, settings=SETTINGS)
    assert losses(tmp_path) == losses(whole.out)
    weights = load_network(tmp_path)[0].state_dict()
    for name, tensor in load_network(whole.out)[0].state_dict().items():
        assert torch.equal(weights[name], tensor), name
    assert result.self_labels == whole.self_labels


def test_another_seed_is_another_run(whole, labels, tmp_path):
    train(labels, out=tmp_path, network="tiny", steps=1, settings=SETTINGS, seed=1)
    assert losses(tmp_path)[0] != losses(whole.out)[0]


def test_a_finished_run_is_only_told_again(whole, labels, monkeypatch):
    monkeypatch.setattr("cupola.training.bootstrap.run_training", None)
    assert train(labels, out=whole.out, network="tiny", steps=STEPS, settings=SETTINGS) == whole


def test_other_settings_or_labels_in_the_same_place(whole, labels, tmp_path):
    with pytest.raises(StoreError, match=r"holds a run of other settings \(steps: 6 there, 7 now"):
        train(labels, out=whole.out, network="tiny", steps=7, settings=SETTINGS)
    other = replace(SETTINGS, optimizer=OptimizerSettings(learning_rate=1e-3))
    with pytest.raises(StoreError, match=r"settings\.optimizer\.learning_rate: 0\.002 there, 0\.001 now"):
        train(labels, out=whole.out, network="tiny", steps=STEPS, settings=other)
    with pytest.raises(StoreError, match="holds a run of other settings"):
        train(labels, out=labels, network="tiny", steps=STEPS, settings=SETTINGS)
    elsewhere = write_store(tmp_path, seed=1)
    with pytest.raises(StoreError, match="other images or labels"):
        train(elsewhere, out=whole.out, network="tiny", steps=STEPS, settings=SETTINGS)


def test_a_signal_finishes_the_step_and_saves(labels, tmp_path):
    settings = replace(SETTINGS, saving_share=1e-9)
    handler = signal.getsignal(signal.SIGTERM)

    def stop_after_a_step() -> None:
        while len(read_metrics(tmp_path)) < 2:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    timer = threading.Thread(target=stop_after_a_step, daemon=True)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        train(labels, out=tmp_path, network="tiny", steps=10_000, settings=settings)
    timer.join()
    assert list(tmp_path.glob("training.*"))
    assert signal.getsignal(signal.SIGTERM) is handler


def test_a_loss_that_is_not_finite_stops_and_keeps_the_state(labels, tmp_path, monkeypatch):
    real, calls = PanopticNetwork.loss_parts, []

    def broken(self, images, targets, generator):
        calls.append(0)
        found = real(self, images, targets, generator)
        return found | {"mask": LossPart(found["mask"].mean * float("nan"), 1)} if len(calls) == 3 else found

    monkeypatch.setattr(PanopticNetwork, "loss_parts", broken)
    message = r"loss mask is not finite at step 3 \(frames 00000\d, 00000\d\); the batch is in .*nonfinite\.npz"
    with pytest.raises(TrainingError, match=message):
        train(labels, out=tmp_path, network="tiny", steps=STEPS, settings=SETTINGS)
    assert len(read_metrics(tmp_path)) == 2
    assert list(tmp_path.glob("training.*"))
    with np.load(tmp_path / "nonfinite.npz", allow_pickle=False) as file:
        report = json.loads(str(file["report"]))
        assert report["step"] == 3
        assert report["values"]["mask"] == "nan"
        assert report["values"]["semantic"] > 0
        assert len(report["keys"]) == 2
        height, width = file["semantic_1"].shape
        assert file["image_1"].shape == (3, height, width)
        assert file["masks_1"].shape == (len(file["boxes_1"]), height, width)
        assert {f"{name}_0" for name in ("image", "semantic", "masks", "boxes", "classes", "ignore")} <= set(file)


def test_a_full_disk_is_said_and_the_earlier_state_kept(whole, labels, tmp_path, monkeypatch):
    """The system refuses to write the second half of the third state. The run then goes on from the second."""
    writes = []

    def full(path, pieces, **options):
        writes.append(path.name)
        if len(writes) < 3:
            return write_over(path, pieces, **options)
        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (sum(map(len, pieces)) // 2, most))
        try:
            return write_over(path, pieces, **options)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

    monkeypatch.setattr("cupola.runs.state.write_over", full)
    with pytest.raises(DiskError, match=r"training\.1\.safetensors: File too large; free some space"):
        train(labels, out=tmp_path, network="tiny", steps=STEPS, settings=SETTINGS)
    monkeypatch.undo()
    assert len(read_metrics(tmp_path)) == 3
    network = PanopticNetwork(tiny(), 1, 2)
    saved = TrainingState(tmp_path).load(
        network, make_optimizer(network, network.named_parameters(), SETTINGS.optimizer)
    )
    assert saved[0].step == 2
    train(labels, out=tmp_path, network="tiny", steps=STEPS, settings=SETTINGS)
    assert losses(tmp_path) == losses(whole.out)


def test_a_damaged_state_is_said(labels, tmp_path):
    tmp_path.joinpath("training.0.safetensors").write_bytes(b"nonsense")
    with pytest.raises(StoreError, match=r"training\.0\.safetensors is damaged, and no other state is there"):
        train(labels, out=tmp_path, network="tiny", steps=STEPS, settings=SETTINGS)


def test_time_limit_ends_early(labels, tmp_path):
    result = train(labels, out=tmp_path, network="tiny", steps=100_000, settings=SETTINGS, time_limit=1.0)
    assert 1 <= result.steps < 1000
    assert read_metrics(tmp_path)[-1]["learning_rate"] < 2e-3


def test_impossible_arguments(labels, tmp_path):
    with pytest.raises(ConfigError, match="at least one step"):
        train(labels, out=tmp_path, steps=0)
    with pytest.raises(ConfigError, match="time limit must be positive"):
        train(labels, out=tmp_path, time_limit=0.0)
    with pytest.raises(ConfigError, match="at least one image"):
        BootstrapSettings(batch=0)
    with pytest.raises(ConfigError, match="at least 32 x 32"):
        BootstrapSettings(crop=(16, 64))
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="no usable GPU"):
            train(labels, out=tmp_path, device="cuda")
    with pytest.raises(StoreError, match="holds no label store"):
        train(tmp_path, out=tmp_path / "net")


def test_command_line(labels, tmp_path, capsys):
    arguments = ["train", str(labels), "--out", str(tmp_path / "net"), "--network", "tiny", "--steps", "2"]
    assert main([*arguments, "--settings.batch", "2", "--settings.self_labels.at", "[]"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"2 steps in \d+\.\d min on 4 frames with 4 labelled objects", text)
    assert "losses at the end: loss " in text
    assert main(["train", str(tmp_path), "--out", str(tmp_path / "other")]) == 2
    assert "holds no label store" in capsys.readouterr().err


def test_optimizer_does_not_decay_norms():
    network = PanopticNetwork(tiny(), 2, 3)
    decayed, plain = make_optimizer(
        network, network.named_parameters(), OptimizerSettings(weight_decay=0.5)
    ).param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.5, 0.0)
    norms = {id(p) for n, p in network.named_parameters() if ".norm." in n}
    assert norms
    assert {id(p) for p in plain["params"]} == norms
    assert len(decayed["params"]) + len(norms) == len(list(network.parameters()))


def test_learning_rate_rises_then_falls():
    settings = OptimizerSettings(learning_rate=1.0, warm_up=10, final=0.1)
    rates = [learning_rate(step, step / 100, settings) for step in range(101)]
    assert rates[0] == pytest.approx(0.1, rel=0.01)
    assert all(earlier < later for earlier, later in pairwise(rates[:10]))
    assert all(earlier > later for earlier, later in pairwise(rates[10:]))
    assert rates[-1] == pytest.approx(0.1)
    constant = OptimizerSettings(learning_rate=1.0, warm_up=0, final=1.0)
    assert {learning_rate(step, step / 10, constant) for step in range(11)} == {1.0}


def test_share_of_a_run_goes_by_steps_or_time():
    plan = Plan(100, 50.0, 1.0, 0, OptimizerSettings())
    assert plan.share(Progress(10, 2.0, "")) == 0.1
    assert plan.share(Progress(10, 25.0, "")) == pytest.approx(0.4 / 0.9)
    assert plan.share(Progress(10, 50.0, "")) == 1
    settings = SelfLabelSettings(at=(0.25, 0.5))
    assert [settings.rounds_due(share) for share in (0.0, 0.24, 0.25, 0.4, 0.5, 1.0)] == [0, 0, 1, 1, 2, 2]


@given(share=st.floats(0, 0.9), slow_start=st.floats(0, 0.1), at=st.floats(0, 1))
def test_a_run_that_is_in_time_goes_by_its_steps_alone(share, slow_start, at):
    """share: of the limit that its steps need; slow_start: of the limit, lost on the first step."""
    plan = Plan(1000, 50.0, 1.0, 0, OptimizerSettings())
    step = round(1000 * at)
    seconds = 50.0 * (share * step / 1000 + slow_start)
    assert plan.share(Progress(step, seconds, "")) == step / 1000


def test_a_frozen_trunk_stays_as_it_was(labels, tmp_path):
    sizes = VitSizes(patch=16, width=16, depth=1, heads=2, grid=4)
    network = replace(tiny(), trunk=VitSettings("dino_vits16", frozen=True, sizes=sizes))
    torch.manual_seed(1)
    weights = VitTrunk(network.trunk).vit.network.state_dict()
    save_file(weights, tmp_path / "vit.safetensors")
    plan = replace(SETTINGS, self_labels=SelfLabelSettings(at=()))
    result = train(
        labels, out=tmp_path / "net", network=network, backbone=tmp_path / "vit.safetensors", steps=2, settings=plan
    )
    learnt, card = load_network(result.out)
    assert learnt.settings == network
    trunk = learnt.backbone.bottom_up.vit.network.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in trunk.items())
    assert card["training"]["backbone"] == {
        "file": "vit.safetensors",
        "sha256": content_hash(tmp_path / "vit.safetensors"),
    }


def test_a_resnet_starts_from_its_file_and_a_wrong_file_takes_no_directory(labels, tmp_path):
    network = replace(tiny(), trunk=TrunkSettings("bottleneck", 8, (1, 1, 1, 1), (4, 4, 8, 8)))
    torch.manual_seed(7)
    weights = ResNet(network.trunk).state_dict()
    torch.save({to_torchvision(name): value for name, value in weights.items()}, tmp_path / "dino.pth")
    still = replace(SETTINGS, optimizer=OptimizerSettings(learning_rate=1e-6), self_labels=SelfLabelSettings(at=()))
    out = tmp_path / "net"
    for wrong in ("nowhere.pth", "config.yaml"):
        (tmp_path / "config.yaml").write_text("no weights")
        with pytest.raises(CheckpointError, match=wrong):
            train(labels, out=out, network=network, backbone=tmp_path / wrong, steps=1, settings=still)
    assert not out.exists()
    train(labels, out=out, network=network, backbone=tmp_path / "dino.pth", steps=1, settings=still)
    learnt, card = load_network(out)
    for name, value in learnt.backbone.bottom_up.named_parameters():
        assert torch.allclose(value, weights[name], atol=1e-4), name
    assert card["training"]["backbone"]["sha256"] == content_hash(tmp_path / "dino.pth")
    (tmp_path / "dino.pth").unlink()
    train(labels, out=out, network=network, backbone=tmp_path / "dino.pth", steps=1, settings=still)  # told again


def test_a_frozen_trunk_needs_weights(labels, tmp_path):
    network = replace(tiny(), trunk=VitSettings(frozen=True))
    with pytest.raises(ConfigError, match="dino_vitb16 is frozen, so it needs weights: name a file as --backbone"):
        train(labels, out=tmp_path, network=network, steps=2)


def test_a_mask2former_is_trained_saved_and_loaded_like_any_other(labels, tmp_path):
    pytest.importorskip("transformers", reason="the extra mask2former is not installed")
    network = Mask2FormerSettings(
        TrunkSettings("basic", stem=8, blocks=(1, 1, 1, 1), widths=(8, 16, 24, 32)),
        queries=5, channels=32, heads=2, encoder_layers=1, encoder_feedforward=32, decoder_layers=1,
        decoder_feedforward=32, points=64,
    )  # fmt: skip
    result = train(labels, out=tmp_path / "net", network=network, steps=3, settings=SETTINGS)
    assert result.losses.keys() == {"loss", "class", "mask", "dice"}
    predictor = cupola.load(result.out, threshold=0.05)
    street = LabelStore.open(labels)
    image = street.image(street.keys[0])
    assert predictor(image).panoptic.classes.shape == image.shape[:2]
    run = cupola.predict([labels.parent / "data"], model=result.out, out=tmp_path / "maps")
    assert run.keys
    assert train(labels, out=tmp_path / "net", network=network, steps=3, settings=SETTINGS) == result


@pytest.mark.parametrize(
    "network",
    [
        "vit-b",
        "mask2former",
        tiny(),
        replace(tiny(), trunk=VitSettings("dino_vits16", frozen=True, sizes=VitSizes(16, 16, 1, 2, 4))),
        replace(mask2former(), trunk=VitSettings("vit_base_patch16_dinov3")),
    ],
)
def test_any_network_comes_back_from_the_saved_arguments(tmp_path, network):
    save_config(tmp_path / "config.yaml", labels=tmp_path, out=tmp_path, network=network)
    arguments = _parse("train", train, ["--config", str(tmp_path / "config.yaml"), str(tmp_path)])
    assert arguments["network"] == network


def test_a_network_that_is_not_there_is_said(tmp_path, capsys):
    assert main(["train", str(tmp_path), "--out", str(tmp_path / "net"), "--network", "vit_b"]) == 2
    said = capsys.readouterr().err
    assert "there is no network `vit_b`, known are paper, vit-b, mask2former, small, tiny; did you mean vit-b?" in said
    assert said.count("\n") == 1
