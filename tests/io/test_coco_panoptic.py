import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cupola.errors import StoreError
from cupola.io.coco_panoptic import (
    Annotation,
    Category,
    from_segments,
    ids_to_rgb,
    read_index,
    read_map,
    rgb_to_ids,
    to_segments,
    write_index,
    write_map,
)
from cupola.types import VOID, PanopticMap

THINGS = (2, 3)


@given(arrays(np.int32, (3, 5), elements=st.integers(0, (1 << 24) - 1)))
def test_ids_round_trip(ids):
    assert np.array_equal(rgb_to_ids(ids_to_rgb(ids)), ids)


@st.composite
def maps(draw):
    classes = draw(arrays(np.int16, (6, 7), elements=st.integers(-1, 4)))
    # Ids are unique across classes, as PanopticMap demands.
    numbers = draw(arrays(np.int32, (6, 7), elements=st.integers(0, 2)))
    instances = np.where(np.isin(classes, THINGS) & (numbers > 0), classes * 100 + numbers, 0).astype(np.int32)
    return PanopticMap(classes, instances)


def _partition(ids):
    """Numbers by first appearance: equal for maps that differ only in their ids."""
    seen: dict[int, int] = {}
    return [seen.setdefault(int(i), len(seen)) for i in ids.ravel()]


@given(maps())
def test_segments_round_trip(panoptic):
    ids, segments = to_segments(panoptic, THINGS)
    again = from_segments(ids, segments)
    assert np.array_equal(again.classes, panoptic.classes)
    # A thing pixel without instance becomes a segment of its own; all others keep their partition.
    with_instance = panoptic.instances > 0
    assert _partition(again.instances[with_instance]) == _partition(panoptic.instances[with_instance])
    assert sum(segment.area for segment in segments) == (panoptic.classes != VOID).sum()
    for segment in segments:
        assert (ids == segment.id).sum() == segment.area


def test_files_round_trip(tmp_path):
    classes = np.array([[0, 2, 2], [VOID, 1, 1]], np.int16)
    instances = np.array([[0, 7, 7], [0, 0, 0]], np.int32)
    ids, segments = to_segments(PanopticMap(classes, instances), THINGS, {7: 0.9})
    write_map(tmp_path / "panoptic" / "a.png", ids)
    annotation = Annotation("a", "a.png", "left/a.png", 2, 3, segments)
    categories = [Category(i, str(i), i in THINGS) for i in range(4)]
    write_index(tmp_path / "panoptic.json", [annotation], categories, {})
    (read,), kinds = read_index(tmp_path / "panoptic.json")
    assert kinds == tuple(categories)
    assert read == annotation
    assert np.array_equal(read_map(tmp_path / "panoptic", read).classes, classes)


def test_a_path_that_leaves_the_folder_is_refused(tmp_path):
    write_index(tmp_path / "p.json", [Annotation("a", "a.png", "a.png", 1, 1, ())], [], {})
    content = json.loads((tmp_path / "p.json").read_text())
    content["annotations"][0]["file_name"] = "../../secret.png"
    (tmp_path / "p.json").write_text(json.dumps(content))
    with pytest.raises(StoreError, match="leaves the folder"):
        read_index(tmp_path / "p.json")


def test_a_damaged_index_is_one_sentence(tmp_path):
    (tmp_path / "p.json").write_text("{")
    with pytest.raises(StoreError, match=r"p\.json is not a COCO panoptic file"):
        read_index(tmp_path / "p.json")
