"""Evaluation against the published code and panopticapi (../shared/parity/README.md 1): all cases, both forms."""

from dataclasses import dataclass

import numpy as np
import pytest

from cupola.evaluation import ConfusionMatrix, PanopticQuality, match_classes

CASES = (
    "same_27",
    "same_27_no_split",
    "split_15_12",
    "split_6_21",
    "over_54",
    "over_54_no_split",
    "over_54_one_to_one",
    "classes_19",
    "classes_19_mask",
    "small_5",
    "no_matching",
    "perfect",
    "edges",
)
VOID = 255
"""Void class of the archive; ours is anything outside the classes."""


@dataclass
class Case:
    values: dict

    def __getitem__(self, name):
        return self.values[name]

    @property
    def is_thing(self):
        mask = np.zeros(len(self["things"]) + len(self["stuffs"]), bool)
        mask[self["things"]] = True
        return mask

    @property
    def pseudo_is_thing(self):
        mask = np.zeros(int(self["num_clusters"]), bool)
        mask[self["things_prototype"]] = True
        return mask

    @property
    def images(self):
        return zip(self["prediction"], self["target"], strict=True)

    def match(self, confusion, split):
        kinds = (self.pseudo_is_thing, self.is_thing) if split else (None, None)
        return match_classes(confusion, *kinds, one_to_one=bool(self["one_to_one"]))


@pytest.fixture(scope="module")
def archive(shared):
    with np.load(shared / "parity" / "panoptic_quality.npz") as file:
        return dict(file)


@pytest.fixture(params=CASES)
def case(request, archive):
    return Case({key.split("/")[1]: value for key, value in archive.items() if key.startswith(f"{request.param}/")})


def collected(case):
    quality, confusion = PanopticQuality(case.is_thing), ConfusionMatrix(int(case["num_clusters"]), len(case.is_thing))
    for prediction, target in case.images:
        quality.update(prediction, target)
        confusion.update(prediction, target)
    return quality, confusion


def assert_scores(scores, case, prefix, counted, rtol):
    """Sums, values of each class and means; `counted`: the classes whose values the archive lists."""
    np.testing.assert_allclose(scores.iou_sum, case[f"{prefix}iou_sum"], rtol=rtol, atol=rtol)
    for name in ("true_positives", "false_positives", "false_negatives"):
        np.testing.assert_array_equal(getattr(scores, name), case[f"{prefix}{name}"])
    for name in ("pq", "sq", "rq"):
        own = np.nan_to_num(getattr(scores, name)[counted])
        np.testing.assert_allclose(own, np.nan_to_num(case[f"{prefix}{name}_per_class"]), rtol=rtol, atol=rtol)
        for means, suffix in ((scores.all, ""), (scores.things, "_things"), (scores.stuff, "_stuffs")):
            np.testing.assert_allclose(
                np.nan_to_num(getattr(means, name)),
                np.nan_to_num(case[f"{prefix}{name}{suffix}"]),
                rtol=rtol,
                atol=rtol,
            )


def test_confusion(case):
    np.testing.assert_array_equal(collected(case)[1].counts, case["cost_matrix"])


def test_assignments(case):
    """Also for pseudo classes that never occur, although theirs means nothing."""
    confusion = case["cost_matrix"].astype(np.int64)
    for name, split in (("assignments", bool(case["split"])), ("miou_assignments", False)):
        published = np.where(case[name] == VOID, -1, case[name])
        np.testing.assert_array_equal(case.match(confusion, split), published)


def test_published_scores(case):
    quality, confusion = collected(case)
    assignment = None if case["disable_matching"] else case.match(confusion.counts, bool(case["split"]))
    mask = case["classes_mask"]
    scores = quality.compute("published", assignment, mask)
    assert_scores(scores, case, "", mask, rtol=1e-5)


def test_standard_scores(case):
    """panopticapi on the mapped prediction, over all classes."""
    quality, confusion = collected(case)
    assignment = None if case["disable_matching"] else case.match(confusion.counts, bool(case["split"]))
    assert_scores(quality.compute("standard", assignment), case, "standard_", slice(None), rtol=1e-9)
    mapped = PanopticQuality(case.is_thing)
    for prediction, target in zip(case["mapped_prediction"], case["target"], strict=True):
        mapped.update(prediction, target)
    assert_scores(mapped.compute("standard"), case, "standard_", slice(None), rtol=1e-9)


def test_semantic_scores(case):
    confusion = collected(case)[1]
    assignment = None if case["disable_matching"] else case.match(confusion.counts, split=False)
    scores = confusion.compute(assignment, "published")
    np.testing.assert_allclose(scores.miou, case["miou"], rtol=1e-5)
    np.testing.assert_allclose(scores.accuracy, case["acc"], rtol=1e-5)


@pytest.mark.parametrize("with_crowds", [True, False])
def test_crowds(archive, with_crowds):
    case = Case({key.split("/")[1]: value for key, value in archive.items() if key.startswith("crowd/")})
    quality = PanopticQuality(case.is_thing)
    for number, (prediction, target) in enumerate(case.images):
        crowds = [tuple(row[1:].tolist()) for row in case["crowd_segments"] if row[0] == number]
        quality.update(prediction, target, crowds if with_crowds else ())
    prefix = "standard_" if with_crowds else "no_crowd_standard_"
    assert_scores(quality.compute("standard"), case, prefix, slice(None), rtol=1e-9)
