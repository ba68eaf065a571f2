"""What a teacher's prediction teaches: thresholds of the classes, and one truth of semantics and objects."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cupola.errors import ConfigError
from cupola.models import IGNORE, NetworkPrediction
from cupola.training.targets import FIRST_OBJECT, UNMARKED, make_target
from cupola.training.teacher_labels import TeacherLabelSettings, confident_pixels, pixel_labels, teacher_sample
from cupola.types import Segment

HEIGHT, WIDTH = 12, 20
RULES = st.sampled_from(["paper", "published"])


def probabilities(seed: int, channels: int = 4) -> torch.Tensor:
    logits = torch.randn(channels, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(seed)) * 2
    return logits.softmax(0)


def prediction(semantic: torch.Tensor, objects: list[tuple[slice, float, int]]) -> NetworkPrediction:
    """Objects as (columns, score, class), over the whole height."""
    panoptic = torch.zeros(HEIGHT, WIDTH, dtype=torch.int32)
    segments = []
    for columns, score, category in objects:
        panoptic[:, columns] = len(segments) + 1
        area = int((panoptic == len(segments) + 1).sum())
        segments.append(Segment(len(segments) + 1, category, True, area, score))
    panoptic[panoptic == 0] = len(segments) + 1  # all the rest is a stuff segment
    segments.append(Segment(len(segments) + 1, 1, False, int((panoptic == len(segments) + 1).sum())))
    nothing = torch.zeros(0)
    masks = torch.zeros(0, HEIGHT, WIDTH, dtype=torch.bool)
    return NetworkPrediction(semantic, nothing.reshape(0, 4), nothing, nothing.long(), masks, panoptic, tuple(segments))


IMAGE = np.zeros((HEIGHT, WIDTH, 3), np.uint8)


def test_a_weak_class_takes_a_pixel_only_by_the_published_rule():
    """The example of spec-network 3.4: probabilities (0.40, 0.30, 0.30), thresholds (0.45, 0.15, 0.15)."""
    pixels = torch.tensor([[0.40, 0.90], [0.30, 0.05], [0.30, 0.05]])[:, None]
    assert pixel_labels(pixels, 0.5).tolist() == [[IGNORE, 0]]
    assert pixel_labels(pixels, 0.5, "published").tolist() == [[1, 0]]


@given(st.integers(0, 10_000), RULES, st.floats(0, 1), st.floats(0, 1))
def test_a_higher_threshold_never_labels_more(seed, rule, first, second):
    low, high = sorted((first, second))
    soft = probabilities(seed)
    assert not (confident_pixels(soft, high, rule) & ~confident_pixels(soft, low, rule)).any()
    assert not ((pixel_labels(soft, high, rule) != IGNORE) & (pixel_labels(soft, low, rule) == IGNORE)).any()


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_by_the_papers_rule_a_label_is_the_most_probable_class(seed, share):
    soft = probabilities(seed)
    labels = pixel_labels(soft, share)
    assert ((labels == soft.argmax(0)) | (labels == IGNORE)).all()
    for channel in labels[labels != IGNORE].unique().tolist():
        peak = soft[channel].max()
        assert (soft[channel][labels == channel] >= share * peak).all()
    assert torch.equal(pixel_labels(soft, 0.0), soft.argmax(0))


def test_objects_are_things_and_other_things_are_no_evidence():
    soft = torch.full((3, HEIGHT, WIDTH), 0.05)
    soft[0, :, :12] = 0.9  # things on the left, stuff 2 on the right
    soft[2, :, 12:] = 0.9
    found = prediction(soft, [(slice(0, 4), 0.9, 3), (slice(4, 8), 0.6, 1), (slice(12, 15), 0.8, 2)])
    sample = teacher_sample(IMAGE, found, TeacherLabelSettings(0.7, 0.5))
    assert sample.classes.tolist() == [3, 2]
    assert sample.codes[0].tolist() == (
        [FIRST_OBJECT] * 4 + [UNMARKED] * 8 + [FIRST_OBJECT + 1] * 3 + [2] * 5
    )  # the object over stuff is a thing (N29), the doubtful one and the pixels between say nothing (N28)
    target = make_target(sample)
    assert (target.semantic[0] == 0).tolist() == [True] * 4 + [False] * 8 + [True] * 3 + [False] * 5
    assert target.ignore[0].tolist() == [False] * 4 + [True] * 8 + [False] * 8


def test_published_left_overs_are_things_of_the_semantics():
    soft = torch.full((2, HEIGHT, WIDTH), 0.05)
    soft[0, :, :12] = 0.9
    soft[1, :, 12:] = 0.9
    sample = teacher_sample(IMAGE, prediction(soft, []), TeacherLabelSettings(left_over="thing"))
    target = make_target(sample)
    assert target.semantic[0].tolist() == [0] * 12 + [1] * 8
    assert target.ignore[0].tolist() == [True] * 12 + [False] * 8
    assert len(target.classes) == 0


@given(st.integers(0, 10_000), RULES, st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_semantics_and_objects_never_disagree(seed, rule, share, score, doubt):
    found = prediction(probabilities(seed), [(slice(0, 5), 0.9, 0), (slice(5, 6), 0.8, 1), (slice(9, 15), 0.4, 0)])
    settings = TeacherLabelSettings(max(score, doubt), min(score, doubt), share, rule)
    sample = teacher_sample(IMAGE, found, settings)
    assert len(sample.classes) == sum(s >= settings.score for s in (0.9, 0.8, 0.4))
    target = make_target(sample)
    assert torch.equal(target.masks.any(0), target.semantic == 0)
    assert not (target.ignore & (target.semantic != IGNORE)).any()


@pytest.mark.parametrize("settings", [{"score": 1.1}, {"share": -0.1}, {"score": 0.5, "doubt": 0.6}])
def test_impossible_settings(settings):
    with pytest.raises(ConfigError, match=r"must be 0\.\.1|must not exceed"):
        TeacherLabelSettings(**settings)
