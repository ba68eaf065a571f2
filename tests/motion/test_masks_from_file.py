"""Masks from a file as a motion method: frames found by name, overlaps, bad input, a whole run."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cupola.cli import main
from cupola.errors import ConfigError, DataError
from cupola.evaluation import EvaluationSettings
from cupola.motion import ImageSegmenter, MasksFromFile
from cupola.motion.masks_from_file import keys_of
from cupola.pseudo_labels import LabelStore
from cupola.types import Calibration, Correspondence, StereoClip, StereoFrame

SIZE = 20, 40


def frame_of(key="a", size=SIZE):
    image = np.zeros((*size, 3), np.uint8)
    return StereoFrame(image, image, Calibration(100.0, 100.0, 20.0, 10.0, 0.5), np.zeros(size, bool), key)


def box(top, left, height, width, size=SIZE):
    mask = np.zeros(size, bool)
    mask[top : top + height, left : left + width] = True
    return mask


def rle(mask):
    changes = np.flatnonzero(np.diff(np.concatenate([[False], mask.T.ravel()]).astype(np.int8)))
    edges = np.concatenate([[0], changes, [mask.size]])
    return {"size": list(mask.shape), "counts": np.diff(edges).tolist()}


def detection(mask, score=0.9, image="a.png"):
    return {"image_id": image, "score": score, "category_id": 1, "segmentation": rle(mask)}


@pytest.fixture
def file(tmp_path):
    def write(content, name="masks.json"):
        (tmp_path / name).write_text(json.dumps(content))
        return tmp_path / name

    return write


def test_best_first_and_none_overlapping(file):
    first, second, third = box(0, 0, 10, 10), box(0, 6, 10, 10), box(0, 1, 10, 10)
    path = file([detection(third, 0.6), detection(second, 0.8), detection(first, 0.9), detection(first, 0.4)])
    found = MasksFromFile(path).objects(frame_of())
    np.testing.assert_array_equal(found.masks, [first, second & ~first])
    np.testing.assert_allclose(found.scores, [0.9, 0.8])
    assert found.motions is None
    assert len(MasksFromFile(path, overlap=0.0).objects(frame_of())) == 1
    assert len(MasksFromFile(path, score=0.95).objects(frame_of())) == 0
    every = MasksFromFile(path, score=0.0, overlap=1.0).objects(frame_of())
    assert len(every) == 2  # the others have no pixel left


@given(
    st.lists(
        st.tuples(
            st.integers(0, 15), st.integers(0, 30), st.integers(1, 12), st.integers(1, 20), st.floats(0, 1, width=32)
        ),
        max_size=8,
    ),
    st.floats(0, 1),
    st.floats(0, 1),
)
@settings(deadline=None, max_examples=40)
def test_what_is_kept_is_disjoint_and_free_enough(tmp_path_factory, boxes, score, overlap):
    path = tmp_path_factory.mktemp("masks") / "m.json"
    path.write_text(json.dumps([detection(box(*shape), value) for *shape, value in boxes]))
    found = MasksFromFile(path, score=score, overlap=overlap).objects(frame_of())
    assert found.masks.sum(0).max(initial=0) <= 1
    assert (np.diff(found.scores) <= 0).all()
    assert (found.scores >= np.float32(score)).all()
    good = [value for *_, value in boxes if value >= score]
    assert bool(len(found)) == bool(good)


def test_masks_of_another_size_follow_the_frame(file):
    segmenter = MasksFromFile(file([detection(box(0, 0, 10, 10))]))
    found = segmenter.objects(frame_of(size=(40, 80)))
    np.testing.assert_array_equal(found.masks, [box(0, 0, 20, 20, (40, 80))])
    with pytest.raises(DataError, match="for an image of 40 x 20 pixels, but it is 80 x 20; detect on the whole"):
        segmenter.objects(frame_of(size=(20, 80)))


def test_a_damaged_mask_names_its_frame(file):
    bad = detection(box(0, 0, 9, 9)) | {"segmentation": {"size": list(SIZE), "counts": [3]}}
    with pytest.raises(DataError, match=r"mask 0 of frame a is damaged \(the run lengths cover 3 of 800 pixels\)"):
        MasksFromFile(file([bad])).objects(frame_of())


def test_it_is_a_motion_method_and_an_image_method(file):
    segmenter = MasksFromFile(file([detection(box(0, 0, 5, 5))]))
    assert isinstance(segmenter, ImageSegmenter)
    nothing = np.zeros((2, 1, 1), np.float32), np.zeros((1, 1), np.float32), np.zeros((1, 1), bool)
    flow, disparity, known = nothing
    fields = Correspondence(flow, flow, disparity, disparity, known, known, known)
    assert len(segmenter(StereoClip(frame_of(), frame_of()), fields, 3)) == 1


@pytest.mark.parametrize(
    ("file_name", "key"),
    [
        ("val/lindau/lindau_000000_000019_leftImg8bit.png", "lindau_000000_000019"),
        ("leftImg8bit/val/lindau/lindau_000000_000019_leftImg8bit.png", "lindau_000000_000019"),
        ("data/street/left/000003.png", "street_000003"),
        ("left\\000003.png", "000003"),
        ("2011_09_26/2011_09_26_drive_0001_sync/image_02/data/0000000005.png", "2011_09_26_drive_0001_sync_0000000005"),
        ("sequences/04/image_2/000001.png", "04_000001"),
        ("000000_10", "000000_10"),
    ],
)
def test_keys_of_every_layout(file_name, key):
    assert key in keys_of(file_name)


def test_numbers_are_refused_without_a_list_of_images(file):
    results = [detection(box(0, 0, 5, 5), image=7)]
    with pytest.raises(DataError, match="numbers its images without saying which is which"):
        MasksFromFile(file(results)).check([("a", "a")])
    images = file({"images": [{"id": 7, "file_name": "x/a.png"}]}, "images.json")
    segmenter = MasksFromFile(file(results), images)
    segmenter.check([("a", "a")])
    assert len(segmenter.objects(frame_of())) == 1
    assert set(segmenter.hashes()) == {"file", "images"}


def test_frames_that_the_file_does_not_know(file):
    listed = {"images": [{"id": 1, "file_name": "b.png"}], "annotations": []}
    with pytest.raises(DataError, match=r"names no image of frame a \(its images are named like b.png\)"):
        MasksFromFile(file(listed)).check([("b", "b"), ("a", "a")])
    named = MasksFromFile(file([detection(box(0, 0, 5, 5))], "named.json"))
    named.check([("a", "a"), ("c", "c")])  # c has no detection
    assert len(named.objects(frame_of("c"))) == 0
    with pytest.raises(DataError, match="names no image of frame c"):
        named.check([("c", "c")])


def test_two_images_of_one_frame(file):
    listed = {"images": [{"id": i, "file_name": f"{i}/a.png"} for i in (1, 2)], "annotations": []}
    with pytest.raises(DataError, match="2 images could be frame a; name them by sequence and frame"):
        MasksFromFile(file(listed)).check([("a", "a")])
    MasksFromFile(file(listed)).check([("1_a", "1_a"), ("2_a", "2_a")])


def test_a_changed_file_is_read_anew(file):
    segmenter = MasksFromFile(file([detection(box(0, 0, 5, 5))]))
    assert len(segmenter.objects(frame_of())) == 1
    file([detection(box(0, 0, 5, 5)), detection(box(10, 10, 5, 5))])
    assert len(segmenter.objects(frame_of())) == 2


@pytest.mark.parametrize(("name", "value"), [("score", 1.5), ("overlap", -0.1), ("score", float("nan"))])
def test_impossible_settings(name, value):
    with pytest.raises(ConfigError, match=f"motion.{name} must be from 0 to 1"):
        replace(MasksFromFile(Path("m.json")), **{name: value})


# A whole run: single stereo frames (no video), masks from a file, labels, scores


THING, STUFF = 26, 7
"""Cityscapes' car and road."""


@pytest.fixture
def data(tmp_path):
    """Four single stereo frames of a red car on a grey road, with truth, numbered so that none follows another."""
    root = tmp_path / "data"
    rng = np.random.default_rng(0)
    for part in ("left", "right", "truth"):
        (root / part).mkdir(parents=True)
    calibration = {"fx": 80.0, "fy": 80.0, "cx": 60.0, "cy": 30.0, "baseline": 0.3}
    (root / "calibration.yaml").write_text(yaml.safe_dump(calibration))
    detections = []
    for number in range(0, 8, 2):
        texture = rng.integers(70, 110, (64, 130, 3)).astype(np.uint8)
        texture[20:50, 30 + 4 * number : 60 + 4 * number] = (30, 30, 230)
        car = box(20, 30 + 4 * number, 30, 30, (64, 112))
        cv2.imwrite(str(root / f"left/{number}.png"), texture[:, :112])
        cv2.imwrite(str(root / f"right/{number}.png"), texture[:, 6:118])
        ids = np.where(car, THING * 1000 + 1, STUFF).astype(np.uint16)
        cv2.imwrite(str(root / f"truth/{number}_instanceIds.png"), ids)
        detections.append(detection(car, image=f"left/{number}.png"))
    (tmp_path / "masks.json").write_text(json.dumps(detections))
    return root


def test_the_baseline_from_masks_to_scores(data, tmp_path, capsys):
    """The masks are exact, so the fused things must be: what is lost would be lost by stage 1c or the evaluation."""
    store = tmp_path / "store"
    label = ["pseudo-label", str(data), "--out", str(store), "--workers", "1", "--semantics.classes", "4"]
    fusion = ["--fusion.sizes", "0", "--fusion.movable", "0"]
    assert main([*label, *fusion, "--motion", "masks", "--motion.file", str(tmp_path / "masks.json")]) == 0
    assert "motion MasksFromFile" in capsys.readouterr().out
    opened = LabelStore.open(store)
    assert opened.keys == ("0", "2", "4", "6")  # single images: each frame, also without a next one
    assert "flow" not in opened.seconds()
    for key in opened.keys:
        truth = box(20, 30 + 4 * int(key), 30, 30, (64, 112))
        np.testing.assert_array_equal(opened.instance_map(key) > 0, truth)
    out = tmp_path / "scores"
    assert main(["evaluate", str(store), str(data), "--out", str(out)]) == 0
    scores = json.loads((out / "result.json").read_text())
    assert scores["matched"]["standard"]["per_class"]["car"]["rq"] == 1.0
    assert scores["objects"]["things"]["share"] == 1.0
    assert scores["settings"]["recall_area"] == EvaluationSettings().recall_area


def test_wrong_files_end_the_run_before_any_work(data, tmp_path, capsys):
    command = ["pseudo-label", str(data), "--out", str(tmp_path / "store"), "--motion", "masks"]
    assert main([*command, "--motion.file", str(tmp_path / "none.json")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    (tmp_path / "other.json").write_text(json.dumps([detection(box(0, 0, 5, 5), image="z.png")]))
    assert main([*command, "--motion.file", str(tmp_path / "other.json")]) == 2
    assert "names no image of frame 0" in capsys.readouterr().err
    assert not (tmp_path / "store").exists()
