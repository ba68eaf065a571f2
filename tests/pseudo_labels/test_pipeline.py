import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from stage1_doubles import (
    CLASSES,
    HEIGHT,
    WIDTH,
    BrightObjects,
    FlatCorrespondence,
    GreySemantics,
    LearntCorrespondence,
    contents,
    double_parts,
    run,
    write_dataset,
)

from cupola.cli.pseudo_label import show
from cupola.errors import ConfigError, CupolaError, DataError, StoreError
from cupola.io import read_ids, write_ids
from cupola.io.coco_panoptic import read_index, read_map
from cupola.pseudo_labels import FusionSettings, LabelStore, fuse
from cupola.pseudo_labels.journal import sole_writer
from cupola.types import VOID


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("video"))


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "labels"
    run(data, out)
    return out


@pytest.fixture
def store_copy(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "labels"))


def test_a_store_holds_every_pair_of_the_video(finished):
    store = LabelStore.open(finished)
    assert store.keys == tuple(f"{number:06d}" for number in range(5))
    assert store.num_classes == CLASSES
    assert store.things == (4,)
    assert store.image(store.keys[0]).shape == (HEIGHT, WIDTH, 3)
    assert store.semantic(store.keys[0]).dtype == np.int16
    assert store.instance_map("000002").max() == 0
    assert store.instance_map("000001").max() == 1
    for name in ("config.yaml", "manifest.json", "frames.jsonl", "semantics_model.npz", "statistics.json"):
        assert (finished / name).is_file()


def test_the_images_are_as_promised(finished):
    assert read_ids(finished / "instances/000000.png").shape == (HEIGHT, WIDTH)
    assert cv2.imread(str(finished / "instances/000000.png"), cv2.IMREAD_UNCHANGED).dtype == np.uint16
    assert cv2.imread(str(finished / "semantics/000000.png"), cv2.IMREAD_UNCHANGED).dtype == np.uint8


def test_the_panoptic_files_hold_the_same_labels(finished):
    store = LabelStore.open(finished)
    annotations, categories = read_index(finished / "panoptic.json")
    assert [annotation.key for annotation in annotations] == list(store.keys)
    assert [category.id for category in categories if category.is_thing] == sorted(store.things)
    for annotation in annotations:
        label, from_files = store.label(annotation.key), read_map(finished / "panoptic", annotation)
        np.testing.assert_array_equal(from_files.classes, label.classes)
        np.testing.assert_array_equal(from_files.instances > 0, label.instances > 0)
        assert (store.dataset.root / annotation.image).is_file()
        things = [segment for segment in annotation.segments if segment.is_thing]
        assert [segment.score for segment in things] == pytest.approx(store.entries[annotation.key].scores, abs=1e-3)


@pytest.mark.parametrize("workers", [2, 3])
def test_the_same_files_whatever_the_number_of_workers(data, finished, tmp_path, workers):
    run(data, tmp_path / "out", workers=workers)
    assert contents(tmp_path / "out") == contents(finished)


def test_a_second_run_computes_nothing(data, store_copy):
    before, times = contents(store_copy), (store_copy / "timings.jsonl").read_bytes()
    run(data, store_copy)
    assert contents(store_copy) == before
    assert (store_copy / "timings.jsonl").read_bytes() == times


def test_a_run_that_is_killed_goes_on_and_ends_with_the_same_files(data, finished, tmp_path):
    out = tmp_path / "out"
    script = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\nfrom pathlib import Path\n"
        "from stage1_doubles import *\n"
        f"run(Path({str(data)!r}), Path({str(out)!r}), double_parts(motion=BrightObjects(stop_at='000003')))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 9
    assert len((out / "frames.jsonl").read_text().splitlines()) == 3
    with pytest.raises(StoreError, match="is not finished; run the command that was making it again"):
        LabelStore.open(out)
    run(data, out)
    assert contents(out) == contents(finished)


@pytest.mark.parametrize("tail", ["{", '{"key": "000004", "scores": [0.', "\x00\x00\x00\x00", "[]", '"text"', "{}"])
def test_a_damaged_last_line_is_redone(data, finished, store_copy, tail):
    lines = (store_copy / "frames.jsonl").read_text().splitlines(keepends=True)
    (store_copy / "frames.jsonl").write_text("".join(lines[:-1]) + tail)
    (store_copy / "panoptic.json").unlink()
    run(data, store_copy)
    assert contents(store_copy) == contents(finished)


@pytest.mark.parametrize("folder", ["instances", "semantics", "parts"])
@pytest.mark.parametrize("harm", ["missing", "cut short"])
def test_a_listed_frame_whose_image_is_gone_is_redone(data, finished, store_copy, folder, harm):
    path = store_copy / folder / "000001.png"
    if harm == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-9])
    run(data, store_copy)
    assert contents(store_copy) == contents(finished)


def test_an_image_of_the_store_that_cannot_be_read_is_one_sentence(data, store_copy):
    path = store_copy / "semantics/000001.png"
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(CupolaError, match=r"semantics/000001.png .*delete it and run the same command again"):
        run(data, store_copy, fusion=FusionSettings(threshold=0.5, sizes=0))


def test_temporary_files_of_a_killed_run_are_cleared_away(data, finished, store_copy):
    (store_copy / "semantics/.000001.abc123.png").write_bytes(b"half")
    run(data, store_copy)
    assert contents(store_copy) == contents(finished)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"seed": 1}, "seed = 0, not 1"),
        ({"every": 2}, "every = 1, not 2"),
        ({"limit": 3}, "limit = None, not 3"),
        ({"scale": 0.5}, "scale = 1.0, not 0.5"),
        ({"keep_scores": True}, "keep_scores = False, not True"),
        ({"parts": double_parts(motion=BrightObjects(threshold=190))}, "parts.motion.threshold = 200, not 190"),
        ({"parts": double_parts(correspondence=FlatCorrespondence(3.0))}, "parts.correspondence.value = 4.0, not 3.0"),
        ({"parts": double_parts(semantics=GreySemantics(4))}, "parts.semantics.classes = 5, not 4"),
    ],
)
def test_other_settings_are_refused_by_name(data, store_copy, changed, named):
    before = contents(store_copy)
    with pytest.raises(StoreError, match=named.replace(".", r"\.")):
        run(data, store_copy, **changed)
    assert contents(store_copy) == before


def test_the_device_and_the_place_of_weights_may_differ_but_not_what_is_in_them(data, tmp_path):
    def parts(name, content, device):
        (tmp_path / name).write_bytes(content)
        return double_parts(correspondence=LearntCorrespondence(weights=tmp_path / name, device=device))

    out = tmp_path / "out"
    run(data, out, parts("first", b"same", "auto"))
    before, manifest = contents(out), (out / "manifest.json").read_bytes()
    times = (out / "timings.jsonl").read_bytes()
    run(data, out, parts("second", b"same", "cpu"))
    assert contents(out) == before
    assert (out / "manifest.json").read_bytes() == manifest
    assert (out / "timings.jsonl").read_bytes() == times
    with pytest.raises(StoreError, match=r"made with parts\.correspondence\.sha256\.weights = "):
        run(data, out, parts("third", b"other", "auto"))


def test_other_data_is_refused(data, store_copy, tmp_path):
    with pytest.raises(StoreError, match="was made with data = "):
        run(write_dataset(tmp_path / "other"), store_copy)


def test_a_foreign_directory_is_refused(data, tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters/mine.txt").write_text("keep me")
    with pytest.raises(StoreError, match=r"holds mine.txt but no label store; choose another --out"):
        run(data, tmp_path / "letters")


def test_fusing_anew_touches_no_raw_result(data, store_copy):
    raw = {name: content for name, content in contents(store_copy).items() if name.split("/")[0] in RAW}
    times = (store_copy / "timings.jsonl").read_bytes()
    store = run(data, store_copy, fusion=FusionSettings(threshold=0.9999, sizes=0))
    assert store.things == (4,)
    store = run(data, store_copy, fusion=FusionSettings(threshold=0.3, measure="ratio", align=False, sizes=0))
    assert store.rule.settings.measure == "ratio"
    assert {name: content for name, content in contents(store_copy).items() if name.split("/")[0] in RAW} == raw
    assert (store_copy / "timings.jsonl").read_bytes() == times
    expected = fuse(store.semantic("000001"), store.instance_map("000001"), store.rule.split, store.rule.settings)
    np.testing.assert_array_equal(store.label("000001").classes, expected.classes)
    assert "threshold: 0.3" in (store_copy / "config.yaml").read_text()


RAW = ("instances", "semantics", "parts", "frames.jsonl", "semantics_model.npz")


def test_what_looks_like_a_part_of_movers_is_ignored_though_its_class_is_stuff(tmp_path):
    data = write_dataset(tmp_path / "video", empty=())
    patch = (slice(20, 24), slice(36, 40))
    for path in (data / "left").iterdir():
        image = cv2.imread(str(path))
        image[14:16][image[14:16] == 240] = 180  # the lower edge of the mover: of the class of the brightest stripe
        image[patch] = (0, 0, 180)  # stands still, as bright as that edge in the channel that semantics look at
        cv2.imwrite(str(path), image)
    parts = double_parts(motion=BrightObjects(threshold=170))
    store = run(data, tmp_path / "out", parts)
    assert store.things == (4,)
    assert (store.semantic("000000")[patch] == 3).all()
    label = store.label("000000").classes
    assert (label[patch] == VOID).all()
    assert (label[18:20, 30:] == 3).all(), "the rest of the stripe keeps its class"
    assert (
        run(data, tmp_path / "out", parts, fusion=FusionSettings(movable=0.0, sizes=0)).label("000000").classes[patch]
        == 3
    ).all()


def test_objects_are_told_apart_by_size(tmp_path, capsys):
    data = write_dataset(tmp_path / "video", empty=())
    for path in sorted((data / "left").iterdir())[::2]:
        image = cv2.imread(str(path))
        image[8:16] = 240  # a wide one in every other frame
        cv2.imwrite(str(path), image)
    store = run(data, tmp_path / "out", fusion=FusionSettings())
    assert store.rule.split.things == (4,)
    assert store.things == (CLASSES, CLASSES + 1)
    assert store.num_classes == CLASSES + 2
    found = [int(store.label(key).classes.max()) for key in store.keys]
    assert found == [CLASSES, CLASSES + 1] * 2 + [CLASSES], "three wide ones come first, two narrow ones second"
    _, categories = read_index(tmp_path / "out/panoptic.json")
    assert [category.id for category in categories if category.is_thing] == list(store.things)
    assert categories[CLASSES].name == "things of 4.5 x 1.0 m"  # 36 of 40 columns at 0.125 m a pixel
    show(store)
    assert "objects told apart by size: things of 4.5 x 1.0 m, things of 1.0 x 1.0 m" in capsys.readouterr().out


def test_fusing_from_memory_and_from_disk_gives_the_same(data, tmp_path):
    parts = double_parts(correspondence=FlatCorrespondence(3.0))  # sizes that have no short decimal: 1.333.. m
    run(data, tmp_path / "out", parts, fusion=FusionSettings())
    before = contents(tmp_path / "out")
    run(data, tmp_path / "out", parts, fusion=FusionSettings(threshold=0.5))
    run(data, tmp_path / "out", parts, fusion=FusionSettings())
    assert contents(tmp_path / "out") == before


def test_limit_and_every(data, tmp_path):
    assert run(data, tmp_path / "a", limit=2).keys == ("000000", "000001")
    assert run(data, tmp_path / "b", every=2).keys == ("000000", "000002", "000004")
    assert run(data, tmp_path / "c", every=2, limit=2).keys == ("000000", "000002")


@pytest.mark.parametrize("changed", [{"limit": 0}, {"every": 0}, {"workers": -1}])
def test_impossible_numbers_are_refused(data, tmp_path, changed):
    with pytest.raises(ConfigError, match=f"{next(iter(changed))} must be"):
        run(data, tmp_path / "out", **changed)


@pytest.fixture
def damaged(tmp_path):
    root = write_dataset(tmp_path / "damaged", frames=6)
    (root / "left/000003.png").write_bytes(b"no image")
    return root


@pytest.mark.parametrize("workers", [1, 2])
def test_a_frame_that_cannot_be_read_is_a_record_and_is_tried_again(damaged, tmp_path, workers, capsys):
    out = tmp_path / "out"
    store = run(damaged, out, workers=workers)
    assert store.keys == ("000000", "000001", "000004")  # 000002 looks ahead to 000003
    assert [failure.key for failure in store.failures] == ["000002", "000003"]
    assert "000003.png" in store.failures[0].reason
    show(store)
    assert "2 frames could not be labelled, the first, 000002, because" in capsys.readouterr().err
    write_dataset(tmp_path / "whole", frames=6)
    shutil.copy(tmp_path / "whole/left/000003.png", damaged / "left/000003.png")
    mended = run(damaged, out)
    assert len(mended.keys) == 5
    assert mended.failures == ()


def test_a_run_of_which_most_fails_is_given_up(tmp_path):
    root = write_dataset(tmp_path / "data", frames=6)
    for number in (1, 3, 5):
        (root / f"right/{number:06d}.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"of 5 frames failed, the first because .*000001.png"):
        run(root, tmp_path / "out")


def test_nothing_readable_at_all(tmp_path):
    root = write_dataset(tmp_path / "data", frames=3)
    for path in (root / "left").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"of 2 frames of .* can be read"):
        run(root, tmp_path / "out")


def test_a_single_frame_is_no_video(tmp_path):
    with pytest.raises(DataError, match="no two that follow each other in time"):
        run(write_dataset(tmp_path / "data", frames=1), tmp_path / "out")


def test_two_runs_do_not_write_to_one_store(data, tmp_path):
    with sole_writer(tmp_path / "out"), pytest.raises(StoreError, match="another run is writing to"):
        run(data, tmp_path / "out")


def test_classes_of_another_store(data, finished, tmp_path):
    other = write_dataset(tmp_path / "more", frames=4, empty=(0, 1, 2, 3), seed=5)
    store = run(other, tmp_path / "out", classes_from=finished)
    assert (tmp_path / "out/semantics_model.npz").read_bytes() == (finished / "semantics_model.npz").read_bytes()
    assert store.things == LabelStore.open(finished).things
    assert run(other, tmp_path / "alone").things == ()


def test_scores_are_kept_on_request(data, tmp_path, finished):
    parts = double_parts(semantics=GreySemantics(give_scores=True))
    store = run(data, tmp_path / "out", parts, keep_scores=True)
    scores = store.scores("000001")
    assert scores.dtype == np.float16
    np.testing.assert_array_equal(scores.argmax(0), store.semantic("000001"))
    assert LabelStore.open(finished).scores("000001") is None


def test_scores_that_do_not_exist_are_one_sentence(data, tmp_path):
    with pytest.raises(ConfigError, match="keep_scores: these semantics give classes but no scores"):
        run(data, tmp_path / "out", keep_scores=True)


def test_pixels_that_show_no_scene_are_ignored(tmp_path):
    root = write_dataset(tmp_path / "data")
    with (root / "calibration.yaml").open("a") as file:
        file.write("margins: {bottom: 0.25}\n")
    store = run(root, tmp_path / "out")
    assert (store.label("000000").classes[-6:] == VOID).all()
    assert (store.label("000000").classes[:-6] != VOID).any()


def test_closing_lines(data, finished, capsys):
    show(LabelStore.open(finished))
    shown = capsys.readouterr()
    assert "5 frames labelled, 4 moving objects; 1 frames have none" in shown.out
    assert "5 pseudo classes: 1 of things, 4 of stuff" in shown.out
    assert "class 4 is of things: 100.0 % of its pixels move" in shown.out
    assert "s of work a frame (reading" in shown.out
    assert "correspondence FlatCorrespondence, motion BrightObjects, semantics GreySemantics" in shown.out
    assert shown.err == ""


def test_a_warning_where_most_frames_are_empty(tmp_path, capsys):
    root = write_dataset(tmp_path / "data", frames=6, empty=(0, 1, 2, 3, 4, 5))
    show(run(root, tmp_path / "out"))
    error = capsys.readouterr().err
    assert "5 of 5 frames have no moving object" in error
    assert "no pseudo class was found to be of things" in error


def test_a_store_that_moved_with_its_data(tmp_path):
    data = write_dataset(tmp_path / "here/video")
    run(data, tmp_path / "here/runs/labels")
    shutil.move(tmp_path / "here", tmp_path / "there")
    store = LabelStore.open(tmp_path / "there/runs/labels")
    assert store.image("000000").shape == (HEIGHT, WIDTH, 3)


def test_a_store_without_its_data(tmp_path):
    data = write_dataset(tmp_path / "video")
    store = run(data, tmp_path / "labels")
    shutil.rmtree(data)
    assert store.label("000000").classes.shape == (HEIGHT, WIDTH)
    with pytest.raises(DataError, match=r"images of the label store .* are no longer readable"):
        LabelStore.open(tmp_path / "labels").image("000000")


def test_facts_name_the_parts(finished):
    facts = LabelStore.open(finished).facts()
    assert facts["motion"] == "BrightObjects"
    assert "threshold 0.08" in facts["fusion"]
    assert all(isinstance(value, str) for value in facts.values())


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("manifest.json", "{", "manifest.json cannot be read"),
        ("manifest.json", '{"format": 99}', "is in store format 99, not 2"),
        ("manifest.json", '{"format": 2}', "is damaged"),
        ("statistics.json", "[]", "statistics.json is not a file of a label store"),
        ("statistics.json", "{}", "is damaged"),
    ],
)
def test_a_damaged_store_is_one_sentence(store_copy, name, content, sentence):
    (store_copy / name).write_text(content)
    with pytest.raises(StoreError, match=sentence):
        LabelStore.open(store_copy)


def test_no_store(tmp_path):
    with pytest.raises(StoreError, match="holds no label store; make one with `cupola pseudo-label DATA --out"):
        LabelStore.open(tmp_path)


def test_255_is_unknown_and_class_0_stays_class_0(store_copy):
    write_ids(store_copy / "semantics/000000.png", np.array([[0, 255, 254]]), bits=8)
    assert LabelStore.open(store_copy).semantic("000000").tolist() == [[0, VOID, 254]]
