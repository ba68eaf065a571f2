"""`cupola evaluate` against lidar points: what is not labelled speaks neither for nor against a prediction."""

import numpy as np
import pytest

from cupola.errors import DataError
from cupola.evaluation import EvaluationSettings
from cupola.finetuning.annotated import open_annotated
from cupola.io import write_rgb
from cupola.io.coco_panoptic import Annotation, Category, to_segments, write_index, write_map
from cupola.scoring import evaluate
from cupola.types import PanopticMap

HEIGHT, WIDTH = 40, 60
ROAD, CAR = 0, 1
"""Classes of the predictions; only the second is a thing."""
PROJECTION = "700 0 30 {} 0 700 20 0 0 0 1 0"
GRID = 3
"""A pixel in so many rows and columns has a point."""


def rectangle(top, left, height=12, width=18):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[top : top + height, left : left + width] = True
    return mask


MOVING, STANDING = rectangle(6, 3), rectangle(6, 30)
UNNAMED = rectangle(24, 3)
"""Two cars, and an object of a label without a class (other-vehicle)."""


def labels():
    """Raw SemanticKITTI label and instance of every pixel; the lowest rows have no point."""
    label = np.full((HEIGHT, WIDTH), 40)
    label[MOVING], label[STANDING], label[UNNAMED] = 252, 10, 20
    return label, (MOVING | STANDING | UNNAMED).astype(int)


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data" / "sequences" / "04"
    for camera in ("image_2", "image_3"):
        write_rgb(folder / camera / "000000.png", np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
    (folder / "calib.txt").write_text(f"P2: {PROJECTION.format(35)}\nP3: {PROJECTION.format(-343)}\n")
    label, instance = labels()
    row, col = (axis.ravel() for axis in np.mgrid[0 : HEIGHT - 4 : GRID, 0:WIDTH:GRID])
    (folder / "labels_image_2").mkdir()
    np.savez(
        folder / "labels_image_2" / "000000.npz",
        row=row,
        col=col,
        label=label[row, col],
        instance=instance[row, col],
        depth=np.full(len(row), 9.0),
    )
    return tmp_path / "data"


def predicted(folder, *objects):
    """Road with these cars on it."""
    instances = np.zeros((HEIGHT, WIDTH), np.int32)
    for number, mask in enumerate(objects, 1):
        instances[mask] = number
    ids, segments = to_segments(PanopticMap((instances > 0).astype(np.int16), instances), [CAR])
    write_map(folder / "panoptic" / "04_000000.png", ids)
    annotation = Annotation("04_000000", "04_000000.png", "04_000000.png", *ids.shape, segments)
    write_index(folder / "panoptic.json", [annotation], [Category(k, f"class {k}", k == CAR) for k in (ROAD, CAR)], {})
    return folder


def test_a_right_prediction_is_right(tmp_path, data):
    result = evaluate(predicted(tmp_path / "maps", MOVING, STANDING), data)
    assert result.matched.standard.all.pq == 1
    assert result.matched.published.all.pq == 1
    assert result.matched.semantic_standard.miou == 1
    counts = result.objects
    assert (counts.things.found, counts.moving.found, counts.standing.found) == (2, 1, 1)
    assert (counts.predicted, counts.false_objects) == (2, 0)


def test_an_object_on_road_is_false_though_most_of_it_is_unlabelled(tmp_path, data):
    false = rectangle(24, 30)
    result = evaluate(predicted(tmp_path / "maps", MOVING, STANDING, false), data)
    assert (result.objects.predicted, result.objects.false_objects) == (3, 1)
    assert result.matched.standard.false_positives.sum() == 1
    assert result.matched.standard.things.rq == pytest.approx(2 / 2.5)


@pytest.mark.parametrize("elsewhere", [rectangle(HEIGHT - 3, 30, 3), rectangle(7, 58, 2, 2), UNNAMED])
def test_an_object_without_labelled_class_is_not_false(tmp_path, data, elsewhere):
    result = evaluate(predicted(tmp_path / "maps", MOVING, STANDING, elsewhere), data)
    assert result.objects.false_objects == 0
    assert result.matched.standard.all.pq == 1


def test_iou_is_that_of_labelled_pixels(tmp_path, data):
    half = rectangle(6, 3, 12, 9)  # half of the moving car: IoU 0.5 is not above it
    most = rectangle(6, 30, 12, 12)
    result = evaluate(predicted(tmp_path / "maps", half, most), data)
    assert (result.objects.moving.found, result.objects.standing.found) == (0, 1)
    assert result.matched.standard.things.sq == pytest.approx(2 / 3)
    assert result.objects.false_objects == 1


def test_least_areas_are_those_of_the_image(tmp_path, data):
    maps = predicted(tmp_path / "maps", MOVING, STANDING)  # 24 points each: as objects of about 300 px have
    assert evaluate(maps, data, settings=EvaluationSettings(recall_area=300)).objects.things.total == 2
    assert evaluate(maps, data, settings=EvaluationSettings(recall_area=400)).objects.things.total == 0
    assert evaluate(maps, data, settings=EvaluationSettings(min_thing_area=400)).matched.standard.things.classes == 0


def test_points_are_not_learnt_from(data):
    with pytest.raises(DataError, match="marks single pixels, which is enough to score masks but not to learn them"):
        open_annotated(data)
