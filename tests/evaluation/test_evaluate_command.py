"""`cupola evaluate` on a data set and predictions of four small frames."""

import json

import numpy as np
import pytest

from cupola.cli import main
from cupola.errors import ConfigError, DataError, StoreError
from cupola.evaluation import EvaluationSettings, Judged, Recall, evaluate_maps
from cupola.io import write_ids, write_rgb
from cupola.io.coco_panoptic import Annotation, Category, to_segments, write_index, write_map
from cupola.scoring import evaluate
from cupola.taxonomy import CITYSCAPES_19
from cupola.types import VOID, PanopticMap

ROAD, SKY, CAR = 0, 10, 13  # classes of the 19
PSEUDO_OF = {ROAD: 2, SKY: 0, CAR: 3}
"""The predictions' class ids; pseudo class 1 is never used."""
FRAMES = 4


def truth_ids(frame):
    """Sky over road, a standing and a moving car: Cityscapes label ids 23, 7, 26."""
    ids = np.full((24, 40), 23)
    ids[10:] = 7
    ids[8:17, 2 + frame : 14 + frame], ids[12:20, 24:38] = 26000, 26001
    ids[0, 0] = 0
    return ids


def true_map(ids):
    classes = np.select([ids == 7, ids == 23, ids >= 1000], [ROAD, SKY, CAR], VOID).astype(np.int16)
    return PanopticMap(classes, np.where(ids >= 1000, ids, 0).astype(np.int32))


def pseudo(panoptic):
    table = np.full(20, VOID, np.int16)
    table[list(PSEUDO_OF)] = list(PSEUDO_OF.values())
    return PanopticMap(table[panoptic.classes], panoptic.instances)


def write_predictions(folder, maps, scores=None):
    annotations = []
    for key, panoptic in maps.items():
        ids, segments = to_segments(panoptic, [PSEUDO_OF[CAR]], scores)
        write_map(folder / "panoptic" / f"{key}.png", ids)
        annotations.append(Annotation(key, f"{key}.png", f"{key}.png", *ids.shape, segments))
    write_index(folder / "panoptic.json", annotations, [Category(k, f"class {k}", k == 3) for k in range(4)], {})
    return folder


@pytest.fixture
def data(tmp_path):
    root = tmp_path / "data"
    for frame in range(FRAMES):
        for side in ("left", "right"):
            write_rgb(root / side / f"{frame:06d}.png", np.full((24, 40, 3), 90, np.uint8))
        write_ids(root / "truth" / f"{frame:06d}_instanceIds.png", truth_ids(frame), bits=16)
    moving = {f"{frame:06d}": [26000] for frame in range(FRAMES - 1)}
    (root / "truth" / "moving.json").write_text(json.dumps(moving))
    (root / "calibration.yaml").write_text("fx: 30\nfy: 30\ncx: 19.5\ncy: 11.5\nbaseline: 0.5\n")
    return root


def predictions_of(tmp_path, frames=range(FRAMES), change=lambda panoptic: panoptic):
    maps = {f"{frame:06d}": change(pseudo(true_map(truth_ids(frame)))) for frame in frames}
    return write_predictions(tmp_path / "predictions", maps)


def without_standing_car(panoptic):
    classes = np.where(panoptic.instances == 26001, np.int16(PSEUDO_OF[ROAD]), panoptic.classes)
    return PanopticMap(classes, np.where(panoptic.instances == 26001, 0, panoptic.instances))


def test_the_truth_under_other_names_is_perfect(tmp_path, data):
    result = evaluate(predictions_of(tmp_path), data)
    assert result.matched.assignment.tolist() == [SKY, VOID, ROAD, CAR]
    for scores in (result.matched.standard, result.matched.published, result.careful.standard):
        assert (scores.all.pq, scores.all.classes) == (1.0, 3)
    assert result.matched.semantic_standard.miou == result.matched.semantic_standard.accuracy == 1.0
    assert result.objects.things == Recall(8, 8)
    assert result.void_share == 0


def test_an_object_that_is_missing_is_missed_by_everything(tmp_path, data):
    result = evaluate(predictions_of(tmp_path, change=without_standing_car), data, classes=27)
    # The last frame does not know what moves, so it counts for all things only.
    assert result.objects.things == Recall(4, 8)
    assert result.objects.moving == Recall(3, 3)
    assert result.objects.standing == Recall(0, 3)
    car = result.taxonomy.names.index("car")
    assert result.matched.standard.false_negatives[car] == 4
    assert result.matched.standard.pq[car] == pytest.approx(4 / (4 + 2))


def test_ap_ranks_objects_by_the_scores_in_the_index(tmp_path, data):
    """A false car on the sky is surer or less sure than the eight true ones."""

    def with_false_car(panoptic):
        classes, instances = panoptic.classes.copy(), panoptic.instances.copy()
        classes[1:4, 30:38], instances[1:4, 30:38] = PSEUDO_OF[CAR], 5
        return PanopticMap(classes, instances)

    maps = {"000000": with_false_car(pseudo(true_map(truth_ids(0))))}
    maps |= {f"{frame:06d}": pseudo(true_map(truth_ids(frame))) for frame in range(1, FRAMES)}
    expected = {0.9: 8 / 9, 0.1: 1.0}
    for score, ap in expected.items():
        scores = {5: score, 26000: 0.5, 26001: 0.6}
        result = evaluate(write_predictions(tmp_path / f"{score}", maps, scores), data)
        assert (result.agnostic.ap, result.matched.precision.ap) == (pytest.approx(ap), pytest.approx(ap))
        assert (result.agnostic.objects, result.agnostic.predicted) == (8, 9)
        assert result.matched.precision.per_class[CAR] == result.matched.precision.ap == result.agnostic.small
    unscored = evaluate(write_predictions(tmp_path / "unscored", maps), data)
    assert unscored.agnostic.ap < 1


def test_only_frames_that_were_predicted_are_scored(tmp_path, data):
    result = evaluate(predictions_of(tmp_path, frames=[1, 3]), data)
    assert result.keys == ("000001", "000003")
    assert result.objects.things.total == 4


def test_small_things_can_be_void(tmp_path, data):
    settings = EvaluationSettings(min_thing_area=110)  # the moving car has 108 px, the standing one 112
    result = evaluate(predictions_of(tmp_path, change=without_standing_car), data, settings=settings)
    assert result.objects.things == Recall(0, 4)
    assert result.objects.false_objects == 0


def test_predictions_of_half_the_size_are_enlarged_and_of_another_shape_refused(tmp_path, data):
    def halved(panoptic):
        return PanopticMap(panoptic.classes[::2, ::2], panoptic.instances[::2, ::2])

    result = evaluate(predictions_of(tmp_path, change=halved), data)
    assert result.matched.standard.all.pq > 0.8

    def cut(panoptic):
        return PanopticMap(panoptic.classes[:, :20], panoptic.instances[:, :20])

    with pytest.raises(DataError, match="000000 is 20 x 24 but its truth is 40 x 24"):
        evaluate(predictions_of(tmp_path, change=cut), data)


def test_the_result_is_written_and_its_assignment_can_be_used_again(tmp_path, data):
    folder, out = predictions_of(tmp_path), tmp_path / "out"
    first = evaluate(folder, data, out=out)
    content = json.loads((out / "result.json").read_text())
    assert content["matched"]["assignment"] == [SKY, VOID, ROAD, CAR]
    assert content["matched"]["standard"]["all"] == {"classes": 3, "pq": 1.0, "rq": 1.0, "sq": 1.0}
    assert content["matched"]["standard"]["per_class"]["car"]["true_positives"] == 8
    assert content["matched"]["standard"]["iou"] == {"road": 1.0, "sky": 1.0, "car": 1.0}
    perfect = {"ap": 1.0, "ap50": 1.0, "ap75": 1.0, "small": 1.0, "medium": None, "large": None}
    assert content["class_agnostic_ap"] == perfect | {"objects": 8, "predicted": 8}
    assert content["matched"]["ap"] == content["class_agnostic_ap"] | {"per_class": {"car": 1.0}}
    assert content["versions"]["cupola"]
    assert content["objects"]["moving"] == {"found": 3, "share": 1.0, "total": 3}
    again = evaluate(folder, data, assignment=out / "result.json")
    assert again.fixed
    assert again.matched.standard.all == first.matched.standard.all
    with pytest.raises(ConfigError, match="19 classes, but here 4 go to 27"):
        evaluate(folder, data, classes=27, assignment=out / "result.json")
    with pytest.raises(ConfigError, match="not a result"):
        evaluate(folder, data, assignment=out / "config.yaml")


def test_the_command_prints_a_table_and_repeats_itself_from_its_config(tmp_path, data, capsys):
    folder, out = predictions_of(tmp_path, change=without_standing_car), tmp_path / "out"
    assert main(["evaluate", str(folder), str(data), "--out", str(out), "--settings.recall_area", "50"]) == 0
    table = capsys.readouterr().out
    for words in (
        "4 frames, 4 pseudo classes",
        "standard protocol",
        "mask AP",
        "class-agnostic",
        "standing",
        "car, thing",
    ):
        assert words in table
    assert all(len(line) <= 120 for line in table.splitlines())
    result = (out / "result.json").read_bytes()
    (out / "result.json").unlink()
    assert main(["evaluate", "--config", str(out / "config.yaml")]) == 0
    assert (out / "result.json").read_bytes() == result


def test_what_cannot_be_scored_is_said_in_one_sentence(tmp_path, data, capsys):
    folder = predictions_of(tmp_path)
    with pytest.raises(StoreError, match="does not exist; is this a folder of COCO panoptic files"):
        evaluate(data, data)
    other = write_predictions(tmp_path / "other", {"elsewhere": pseudo(true_map(truth_ids(0)))})
    with pytest.raises(DataError, match="named like elsewhere, frames like 000000"):
        evaluate(other, data)
    for path in (data / "truth").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="holds no truth"):
        evaluate(folder, data)
    assert main(["evaluate", str(folder), str(data)]) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(("name", "value"), [("min_thing_area", -1), ("recall_area", -1), ("minimum_iou", 1.0)])
def test_impossible_settings_are_refused(name, value):
    with pytest.raises(ConfigError, match=f"{name} must be"):
        EvaluationSettings(**{name: value})


def test_categories_that_are_no_classes_are_refused(tmp_path, data):
    folder = predictions_of(tmp_path)
    write_index(folder / "panoptic.json", [], [], {})
    with pytest.raises(DataError, match="named like nothing"):
        evaluate(folder, data)
    write_index(folder / "panoptic.json", [Annotation("000000", "000000.png", "x", 24, 40, ())], [], {})
    with pytest.raises(StoreError, match="no usable category ids"):
        evaluate(folder, data)


def test_the_careful_matching_shows_what_the_trap_costs():
    """Two pseudo classes of sky and a car that nobody predicted; one sky is matched to it for want of better."""
    target = true_map(truth_ids(0))
    classes = np.where(target.classes == SKY, np.int16(0), np.int16(2))
    classes[:, 23:][classes[:, 23:] == 0] = 1
    classes[12, 24:28] = 1  # a few pixels of the car
    prediction = PanopticMap(classes, np.zeros_like(target.instances))
    result = evaluate_maps([Judged("0", prediction, target)], CITYSCAPES_19, np.zeros(3, bool))
    assert result.matched.semantic_assignment.tolist() == [SKY, CAR, ROAD]
    assert result.careful.semantic_assignment.tolist() == [SKY, SKY, ROAD]
    assert result.careful.semantic_standard.miou > result.matched.semantic_standard.miou


def test_maps_of_unequal_size_are_refused():
    small = PanopticMap(np.zeros((2, 2), np.int16), np.zeros((2, 2), np.int32))
    large = PanopticMap(np.zeros((2, 3), np.int16), np.zeros((2, 3), np.int32))
    with pytest.raises(ValueError, match="differ"):
        evaluate_maps([Judged("0", small, large)], CITYSCAPES_19, np.zeros(1, bool))
