"""What is shown of a run: TensorBoard and W&B, pictures of a fixed batch, scores on frames with truth."""

import json
import sys
from types import ModuleType, SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from training_doubles import labels, write_store

from cupola.data.synthetic.writer import render
from cupola.errors import ConfigError, DataError
from cupola.models import PanopticNetwork, Target, load_network, tiny
from cupola.runs.metrics import read_metrics
from cupola.training import BootstrapSettings, train
from cupola.training.augment import AugmentSettings
from cupola.training.copy_paste import CopyPasteSettings
from cupola.training.data import load_data
from cupola.training.processes import memory_in_use
from cupola.training.record import Recorder, require_log
from cupola.training.sampler import BatchSettings, make_batch
from cupola.training.watching import Monitoring, Pictures, predicted_map, target_map
from cupola.types import VOID

STEPS = 3


def images_of(directory):
    """Names of all images in the event files, and scalars by tag: [(step, value), ..]."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(directory))
    events.Reload()
    scalars = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    return events.Tags()["images"], scalars


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """A run that is watched in every way, on the rendered street that the scores are taken of."""
    root = tmp_path_factory.mktemp("watched")
    store = write_store(root)
    street = render(root / "street", sequences=1, frames=2, height=64, width=128, seed=1, workers=1)
    out = root / "net"
    settings = BootstrapSettings(batch=2, saving_share=1e9)
    train(
        store, out=out, network="tiny", steps=STEPS, settings=settings, validate=root / "street", validate_every=2,
        pictures=2, log="tensorboard", device="cpu",
    )  # fmt: skip
    return store, out, street


def test_tensorboard_holds_what_metrics_do(watched):
    _, out, _ = watched
    images, scalars = images_of(out / "tensorboard")
    lines = read_metrics(out)
    assert [line["step"] for line in lines] == [1, 2, 3]
    for name in lines[0]:
        if name != "step":
            assert [step for step, _ in scalars[name]] == [1, 2, 3]
            assert [value for _, value in scalars[name]] == pytest.approx([line[name] for line in lines], rel=1e-6)
    assert len(images) == 1
    assert [step for step, _ in scalars["monitoring/pq"]] == [2, 3]


def test_pictures_show_input_target_and_prediction(watched):
    _, out, _ = watched
    pictures = sorted(path.name for path in (out / "pictures").iterdir())
    assert pictures == ["000001.png", "000002.png", "000003.png"]  # at 0, 1/2 and the end
    shown = [cv2.imread(str(out / "pictures" / name)) for name in pictures]
    height, width = shown[0].shape[0] // 2, shown[0].shape[1] // 3
    assert (height, width) == (64, 96)
    for picture in shown[1:]:
        assert np.array_equal(picture[:, : 2 * width], shown[0][:, : 2 * width])  # the batch is fixed


def test_monitoring_writes_scores(watched):
    _, out, _ = watched
    lines = [json.loads(line) for line in (out / "monitoring.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 3]
    for line in lines:
        assert line["frames"] == 2
        assert 0 <= line["pq"] <= 1
        assert 0 < line["miou"] <= 1


def test_watching_changes_nothing(watched, tmp_path):
    store, out, _ = watched
    settings = BootstrapSettings(batch=2, saving_share=1e9)
    train(store, out=tmp_path, network="tiny", steps=STEPS, settings=settings, pictures=0, device="cpu")
    assert not (tmp_path / "pictures").exists()
    assert not (tmp_path / "tensorboard").exists()
    weights = load_network(tmp_path)[0].state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in load_network(out)[0].state_dict().items())


def test_validation_needs_truth(watched, tmp_path):
    store, _, _ = watched
    with pytest.raises(DataError, match=r"no frame of .* has truth"):
        Monitoring(tmp_path, store.parent / "data", 2)
    with pytest.raises(ConfigError, match="validate_every must be at least 1"):
        train(store, out=tmp_path, validate_every=0)


def test_a_log_whose_package_is_missing_is_said(monkeypatch):
    require_log("none")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"--log wandb needs the package wandb: run `pip install 'cupola\[wandb\]'`"):
        require_log("wandb")


def test_wandb_gets_what_tensorboard_gets_and_stays_offline(monkeypatch, tmp_path):
    logged, begun = [], []

    class Run:
        def log(self, values, step):
            logged.append((step, values))

        def finish(self):
            logged.append("finished")

    module = ModuleType("wandb")
    module.init = lambda **options: begun.append(options) or Run()
    module.Image = lambda image: SimpleNamespace(shape=image.shape)
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    with Recorder(tmp_path, 0, "wandb") as recorder:
        recorder.step(1, {"loss": 2.0})
        recorder.picture(1, "shown", np.zeros((2, 3, 3), np.uint8))
    assert begun[0]["mode"] == "offline"
    assert logged[0] == (1, {"loss": 2.0})
    assert logged[1][1]["shown"].shape == (2, 3, 3)
    assert logged[-1] == "finished"
    assert read_metrics(tmp_path) == [{"step": 1, "loss": 2.0}]


def test_maps_of_target_and_prediction_share_their_classes():
    target = Target(
        semantic=torch.tensor([[0, 1, 2, 255]]),
        masks=torch.tensor([[[True, False, False, False]]]),
        boxes=torch.tensor([[0.0, 0, 1, 1]]),
        classes=torch.tensor([1]),
        ignore=torch.zeros(1, 4, dtype=torch.bool),
    )
    drawn = target_map(target, 3)
    assert drawn.classes.tolist() == [[1, 3, 4, VOID]]
    assert drawn.instances.tolist() == [[1, 0, 0, 0]]
    torch.manual_seed(0)
    network = PanopticNetwork(tiny(), 2, 3)
    (prediction,) = network.predict([torch.rand(3, 64, 64)], score_threshold=0.0)
    found = predicted_map(prediction, 2)
    stuff = {segment.category + 1 for segment in prediction.segments if not segment.is_thing}
    things = {segment.category for segment in prediction.segments if segment.is_thing}
    assert set(np.unique(found.classes)) - {VOID} == stuff | things


def test_pictures_are_drawn_so_many_times(tmp_path):
    data = load_data(labels(2), skip_empty=False, min_side=8, bank_size=9, seed=0)
    batch = make_batch(data, 0, BatchSettings(1, (64, 96), 0, AugmentSettings(), CopyPasteSettings()))
    network = PanopticNetwork(tiny(), 1, 2)
    pictures = Pictures(tmp_path, batch, 3)
    with Recorder(tmp_path, 0) as recorder:
        for step in range(1, 13):
            pictures.after_step(step, step / 12, network, recorder)
    names = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert names == ["000001.png", "000004.png", "000008.png", "000012.png"]


def test_memory_in_use_is_told():
    assert memory_in_use(torch.device("cpu")).endswith(" GB")
