"""`cupola self-train` on a small street: the teacher, resume bit for bit, what it writes, and its errors."""

import copy
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from training_doubles import decided, street, write_store

from cupola.cli import main
from cupola.errors import CheckpointError, ConfigError, DataError, StoreError
from cupola.io import write_rgb
from cupola.models import ViewSettings, load_network, save_network
from cupola.runs.metrics import read_metrics
from cupola.training import SelfTrainingSettings, TeacherLabelSettings, self_train
from cupola.training.frames import open_frames
from cupola.training.self_training_settings import PRESETS
from cupola.training.self_training_task import (
    SelfTrainingTask,
    follow,
    images_of_step,
    student_batch,
    trained_parameters,
)
from cupola.training.state import TrainingState

SETTINGS = SelfTrainingSettings(
    batch=2,
    batches=2,
    uses=2,
    decay=0.9,
    trained="heads",
    saving_share=1e9,
    views=ViewSettings((1.0,)),
    labels=TeacherLabelSettings(score=0.3, doubt=0.2),
)
"""A state after every step, few views, and scores that an untrained network reaches."""
STEPS = 5


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A label store (its data beside it) and a network."""
    root = tmp_path_factory.mktemp("street")
    write_store(root)
    save_network(root / "net", decided(), {"things": [0, 1], "stuff": [2, 3], "class_names": {"0": "car"}})
    return root


@pytest.fixture(scope="module")
def whole(root, tmp_path_factory):
    """An unbroken run."""
    out = tmp_path_factory.mktemp("whole") / "net"
    return self_train(root / "labels", model=root / "net", out=out, steps=STEPS, settings=SETTINGS)


def same_weights(first: Path, second: Path) -> bool:
    one, other = load_network(first)[0].state_dict(), load_network(second)[0].state_dict()
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_what_it_writes(whole, root):
    student, card = load_network(whole.out)
    teacher, teacher_card = load_network(whole.teacher)
    given_network = load_network(root / "net")[0]
    assert card["things"] == [0, 1]
    assert card["class_names"] == {"0": "car"}
    facts = card["training"]
    assert (facts["stage"], facts["role"], facts["steps"], facts["frames"]) == (3, "student", STEPS, 4)
    assert teacher_card["training"]["role"] == "teacher"
    assert student.settings == teacher.settings == given_network.settings
    assert [line["step"] for line in read_metrics(whole.out)] == list(range(1, STEPS + 1))
    assert set(whole.losses) >= {"semantic", "mask", "stage0_class"}
    assert not list(whole.out.glob("training.*"))


def test_only_heads_are_learnt_and_the_teacher_lies_between(whole, root):
    before, student, teacher = (load_network(path)[0].state_dict() for path in (root / "net", whole.out, whole.teacher))
    trained = {name for name, _ in trained_parameters(decided(), "heads")}
    for name, old in before.items():
        if name not in trained:
            assert torch.equal(student[name], old), name
            assert torch.equal(teacher[name], old), name
    moved = [name for name in trained if not torch.equal(student[name], before[name])]
    assert "sem_seg_head.predictor.weight" in moved
    assert "roi_heads.box_predictor.0.cls_score.weight" in moved
    for name in moved:
        assert not torch.equal(teacher[name], before[name]), name
        assert not torch.equal(teacher[name], student[name]), name


def test_all_but_batch_norms_can_be_learnt():
    network = decided()
    named = dict(network.named_parameters())
    every = {name for name, _ in trained_parameters(network, "all")}
    assert {name for name in named if name not in every} == {name for name in named if ".norm." in name}


def test_the_teacher_learns_what_the_student_had_before(root, whole, tmp_path):
    """One step's teacher is the mean that its decay says, of the given network and the student of that step."""
    result = self_train(root / "labels", model=root / "net", out=tmp_path, steps=1, settings=SETTINGS)
    before, student, teacher = (
        load_network(path)[0].state_dict() for path in (root / "net", result.out, result.teacher)
    )
    for name, tensor in teacher.items():
        wanted = 0.9 * before[name].double() + 0.1 * student[name].double()
        assert torch.allclose(tensor.double(), wanted, atol=1e-6), name


@given(st.floats(0, 1), st.integers(0, 100))
@settings(max_examples=20, deadline=None)
def test_fixed_points_of_the_teacher(decay, seed):
    torch.manual_seed(seed)
    student, teacher = torch.nn.Linear(4, 3), torch.nn.Linear(4, 3)
    equal = copy.deepcopy(student)
    follow(equal, student, decay)
    assert torch.equal(equal.weight, student.weight)
    before = teacher.weight.clone()
    follow(teacher, student, 1.0)
    assert torch.equal(teacher.weight, before)
    follow(teacher, student, 0.0)
    assert torch.allclose(teacher.weight, student.weight)


@pytest.mark.parametrize("after", [1, 2, 4])
def test_a_run_that_was_stopped_goes_on_bit_for_bit(root, whole, tmp_path, monkeypatch, after):
    """Stopped after a saved state: inside a block (1), between blocks (2, 4)."""
    real, saved = TrainingState.save, []

    def stop(*arguments):
        real(*arguments)
        saved.append(arguments)
        if len(saved) == after:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TrainingState, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            self_train(root / "labels", model=root / "net", out=tmp_path, steps=STEPS, settings=SETTINGS)
    assert len(read_metrics(tmp_path)) == after
    result = self_train(root / "labels", model=root / "net", out=tmp_path, steps=STEPS, settings=SETTINGS)
    assert same_weights(result.out, whole.out)
    assert same_weights(result.teacher, whole.teacher)


def test_killed_it_goes_on_bit_for_bit(root, whole, tmp_path):
    """SIGKILL to the command in a process of its own, as soon as it has saved a state."""
    config = tmp_path / "settings.yaml"
    words = ["self-train", str(root / "labels"), "--model", str(root / "net"), "--out", str(tmp_path / "net")]
    text = (whole.out / "config.yaml").read_text()
    config.write_text("settings:" + text.split("settings:")[1].split("\nseed:")[0] + "\n")
    words += ["--config", str(config), "--steps", str(STEPS)]
    process = subprocess.Popen([sys.executable, "-m", "cupola.cli", *words], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "net").glob("training.*")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "net" / "model.json").exists()
    assert main(words) == 0
    assert same_weights(tmp_path / "net", whole.out)
    assert same_weights(tmp_path / "net" / "teacher", whole.teacher)


def test_reading_ahead_changes_nothing(root):
    """The batches of a task, and the same made by hand one after the other."""
    frames = open_frames(root / "labels")
    task = SelfTrainingTask(decided(), frames, SETTINGS, 7, "")
    with task.batches() as batches:
        for step in range(SETTINGS.block + 2):
            task.before_step(step, 0.0, task.teacher)
            batch = batches.get(step)
            block, place = divmod(step, SETTINGS.block)
            pool = task.numbers(block)
            numbers = [pool[number] for number in images_of_step(SETTINGS, block, place, 7)]
            labels = task.label([frames.read(number) for number in numbers])
            names = tuple(frames.keys[number] for number in numbers)
            wanted = student_batch(names, labels, step, SETTINGS, 7, 0)
            assert batch.keys == wanted.keys
            for found, expected in zip(batch.images, wanted.images, strict=True):
                assert torch.equal(found, expected)
            for found, expected in zip(batch.targets, wanted.targets, strict=True):
                assert torch.equal(found.semantic, expected.semantic)
                assert torch.equal(found.masks, expected.masks)


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(0, 9))
def test_a_block_uses_every_image_as_often(batch, parts, uses, seed):
    settings = replace(SETTINGS, batch=batch, batches=parts, uses=uses)
    steps = [images_of_step(settings, 3, place, seed) for place in range(settings.block)]
    assert all(len(step) == batch for step in steps)
    for use in range(uses):
        once = [number for step in steps[use * parts : (use + 1) * parts] for number in step]
        assert sorted(once) == list(range(settings.pool))


def test_pasting_leaves_the_labels_alone(root):
    """N7: what is pasted is a copy, so the labels of a block serve all its steps."""
    frames = open_frames(root / "labels")
    labels = SelfTrainingTask(decided(), frames, SETTINGS, 0, "").label([frames.read(0), frames.read(1)])
    assert sum(len(sample.classes) for sample in labels) > 0
    before = [(sample.image.copy(), sample.codes.copy()) for sample in labels]
    for step in range(3):
        student_batch(("a", "b"), labels, step, SETTINGS, 0, 0)
    for sample, (image, codes) in zip(labels, before, strict=True):
        assert np.array_equal(sample.image, image)
        assert np.array_equal(sample.codes, codes)


@pytest.mark.parametrize(("rows", "enlarged"), [((1.0, 1.0), 1.0), ((0.4, 0.7), 1.0), ((0.5, 0.5), 1.5)])
def test_sizes_of_what_the_student_sees(root, rows, enlarged):
    """Relative to the rows at which the network looks at images, which are at least the image's own."""
    frames = open_frames(root / "labels")
    labels = SelfTrainingTask(decided(), frames, SETTINGS, 0, "").label([frames.read(0), frames.read(1)])
    height, width = labels[0].size
    for step in range(5):
        changed = replace(SETTINGS, rows=rows)
        images = student_batch(
            ("a", "b"), labels, step, changed, 0, round(height * enlarged) if enlarged > 1 else 0
        ).images
        assert images[0].shape == images[1].shape
        share = images[0].shape[1] / height
        assert rows[0] * enlarged - 0.5 / height <= share <= rows[1] * enlarged + 0.5 / height
        assert abs(images[0].shape[2] / width - share) < 1 / height


def test_the_student_will_look_at_larger_images(root, tmp_path):
    """As its settings say; whole images of enough rows are taken as they are. Nothing else of the network changes."""
    began = decided()
    began.settings = replace(began.settings, rows=72)
    save_network(tmp_path / "net", began, {"things": [0, 1], "stuff": [2, 3]})
    settings = replace(SETTINGS, enlarge=1.5)
    result = self_train(root / "data", model=tmp_path / "net", out=tmp_path / "out", steps=1, settings=settings)
    for directory in (result.out, result.teacher):
        assert load_network(directory)[0].settings == replace(began.settings, rows=108)


def test_images_come_from_stores_data_sets_and_folders(root, tmp_path):
    store, dataset = open_frames(root / "labels"), open_frames(root / "data")
    assert len(store) == 4
    assert len(dataset) == 5
    assert np.array_equal(store.read(1), dataset.read(1))
    for number in range(2):
        write_rgb(tmp_path / "deep" / f"{number}.png", street(number, 1))
    folder = open_frames(tmp_path)
    assert folder.keys == ("deep/0.png", "deep/1.png")
    assert np.array_equal(folder.read(1), street(1, 1))
    assert len({frames.fingerprint for frames in (store, dataset, folder)}) == 3


def test_a_finished_run_is_only_told_again(root, whole, monkeypatch):
    monkeypatch.setattr("cupola.training.self_training.run_training", None)
    again = self_train(root / "labels", model=root / "net", out=whole.out, steps=STEPS, settings=SETTINGS)
    assert again == whole


def test_a_student_can_go_to_school_again(whole, root, tmp_path):
    """N45: stage 3 from what stage 3 wrote."""
    result = self_train(root / "data", model=whole.teacher, out=tmp_path, steps=1, settings=SETTINGS)
    assert load_network(result.out)[1]["training"]["began_as"]["role"] == "teacher"


def test_wrong_inputs(root, whole, tmp_path):
    run = {"model": root / "net", "out": tmp_path / "out", "steps": 1, "settings": SETTINGS}
    with pytest.raises(DataError, match="is not a directory"):
        self_train(tmp_path / "nowhere", **run)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="there is no image in"):
        self_train(tmp_path / "empty", **run)
    with pytest.raises(CheckpointError, match="give the directory of a trained network"):
        self_train(root / "data", **run | {"model": root / "labels"})
    with pytest.raises(ConfigError, match="would overwrite the network"):
        self_train(root / "data", **run | {"out": root / "net"})
    with pytest.raises(ConfigError, match="at least one step"):
        self_train(root / "data", **run | {"steps": 0})
    with pytest.raises(StoreError, match=r"settings\.decay: 0\.9 there, 0\.5 now"):
        self_train(
            root / "labels", **run | {"out": whole.out, "steps": STEPS, "settings": replace(SETTINGS, decay=0.5)}
        )
    with pytest.raises(StoreError, match="other images or labels"):
        self_train(root / "data", **run | {"out": whole.out, "steps": STEPS})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch": 0},
        {"uses": 0},
        {"batches": 0},
        {"decay": 1.5},
        {"crop": (0.0, 1.0)},
        {"rows": (1.0, 0.5)},
        {"enlarge": 0.0},
    ],
)
def test_impossible_settings(wrong):
    with pytest.raises(ConfigError):
        SelfTrainingSettings(**wrong)


def test_presets_differ_where_paper_and_code_do():
    paper, published = PRESETS["paper"](), PRESETS["published"]()
    assert (paper.decay, published.decay) == (0.9999, 0.999)
    assert (paper.views.scales, published.views.scales) == ((0.75, 1.0, 1.25), (0.5, 0.75, 1.0))
    assert (paper.labels.rule, published.labels.rule) == ("paper", "published")
    assert (paper.optimizer.weight_decay, published.optimizer.weight_decay) == (0.0, 1e-5)
    assert paper.trained == published.trained == "heads"


def test_command_line(root, tmp_path, capsys):
    words = ["self-train", str(root / "data"), "--model", str(root / "net"), "--out", str(tmp_path / "net")]
    words += ["--preset", "published", "--settings.batch", "1", "--settings.decay", "0.5", "--steps", "1"]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert re.search(r"1 steps in \d+\.\d min on 5 images without labels", text)
    assert "decay: 0.5" in (tmp_path / "net" / "config.yaml").read_text()
    assert "rule: published" in (tmp_path / "net" / "config.yaml").read_text()
    assert main([*words[:-6], "--preset", "no"]) == 2
    assert "there is no preset `no`, known are paper, published" in capsys.readouterr().err
