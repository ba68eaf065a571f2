"""Prediction from several views: what it must have in common with the plain one, and how views are fused."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cupola.errors import ConfigError
from cupola.models import PanopticNetwork, tiny
from cupola.models.records import Detections
from cupola.models.views import View, ViewSettings, predict_views, unite

SIZE = (90, 150)


def decided(things: int = 3, stuff: int = 4, seed: int = 0) -> PanopticNetwork:
    """An untrained network whose heads have opinions, so that it finds objects and no scores tie."""
    torch.manual_seed(seed)
    network = PanopticNetwork(tiny(), things, stuff)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith(("cls_score.weight", "mask_head.predictor.weight")):
                parameter.mul_(100)
    return network.eval()


def picture(seed: int, size: tuple[int, int] = SIZE) -> torch.Tensor:
    coarse = torch.rand(1, 3, 9, 15, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, size, mode="nearest")[0]


def mirrored(boxes: torch.Tensor, width: int) -> torch.Tensor:
    return torch.stack((width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]), 1)


def test_one_plain_view_is_the_plain_prediction():
    network, images = decided(), [picture(0), picture(1, (64, 96))]
    sizes = [(180, 300), (64, 96)]
    plain = [
        network.predict([image], score_threshold=0.4, output_sizes=[size])[0]
        for image, size in zip(images, sizes, strict=True)
    ]
    found = predict_views(network, images, ViewSettings((1.0,), flip=False), score_threshold=0.4, output_sizes=sizes)
    for one, other in zip(found, plain, strict=True):
        assert len(one.scores) > 0
        assert torch.allclose(one.semantic, other.semantic.softmax(0), atol=1e-4)
        assert torch.allclose(one.boxes, other.boxes, atol=1e-2)
        assert torch.allclose(one.scores, other.scores, atol=1e-4)
        assert (one.panoptic != other.panoptic).float().mean() < 1e-3
        assert [(s.is_thing, s.category) for s in one.segments] == [(s.is_thing, s.category) for s in other.segments]


@pytest.mark.parametrize("scores", ["max", "mean"])
def test_a_mirrored_image_gives_the_mirrored_prediction(scores):
    network, image = decided(), picture(2)
    views = ViewSettings((0.75, 1.0), scores=scores)
    (found,), (other,) = (
        predict_views(network, [photo], views, score_threshold=0.3) for photo in (image, image.flip(-1))
    )
    assert len(found.scores) > 3
    assert torch.allclose(found.semantic, other.semantic.flip(-1), atol=1e-4)
    assert torch.allclose(found.scores, other.scores, atol=1e-4)
    assert torch.allclose(found.boxes, mirrored(other.boxes, SIZE[1]), atol=2e-2)
    assert torch.equal(found.classes, other.classes)
    assert (found.masks != other.masks.flip(-1)).float().mean() < 1e-3


def test_semantics_are_probabilities_and_no_padding_enters_them():
    """Whatever lies beyond the image: the mean of mirrored views of a symmetric image is symmetric (N17)."""
    network = decided()
    half = picture(3, (90, 75))
    image = torch.cat((half, half.flip(-1)), 2)
    (found,) = predict_views(network, [image], ViewSettings((0.7, 1.1)))
    assert torch.allclose(found.semantic.sum(0), torch.ones(SIZE), atol=1e-5)
    assert torch.allclose(found.semantic, found.semantic.flip(-1), atol=1e-4)


def test_mean_scores_are_a_second_opinion_on_the_same_objects():
    network, image = decided(), picture(4)
    best, mean = (
        predict_views(network, [image], ViewSettings((0.75, 1.0, 1.25), scores=scores), score_threshold=0.35)[0]
        for scores in ("max", "mean")
    )
    assert 0 < len(mean.scores) < len(best.scores)
    assert (mean.scores.diff() <= 0).all()
    assert (mean.scores > 0.35).all()
    assert all((best.boxes - box).abs().amax(1).min() < 1e-4 for box in mean.boxes)


def test_a_network_without_things():
    (found,) = predict_views(decided(things=0), [picture(5)])
    assert len(found.scores) == 0
    assert found.masks.shape == (0, *SIZE)
    assert not any(segment.is_thing for segment in found.segments)


def test_the_network_keeps_its_mode():
    network = decided().train()
    network.backbone.eval()
    statistics = {name: value.clone() for name, value in network.state_dict().items()}
    predict_views(network, [picture(6)], ViewSettings((1.0,)))
    assert network.training
    assert not network.backbone.training
    assert all(torch.equal(value, statistics[name]) for name, value in network.state_dict().items())


@given(st.integers(0, 1000), st.integers(0, 8), st.integers(0, 8))
@settings(max_examples=30, deadline=None)
def test_the_union_holds_the_best_of_every_overlap(seed, first, second):
    network = decided()
    generator = torch.Generator().manual_seed(seed)

    def detections(count: int) -> Detections:
        corner = torch.rand(count, 2, generator=generator) * 40
        boxes = torch.cat((corner, corner + 8 + 20 * torch.rand(count, 2, generator=generator)), 1)
        scores = torch.rand(count, generator=generator).sort(descending=True).values
        return Detections(boxes, scores, torch.randint(2, (count,), generator=generator))

    view = View((75, 80), [], torch.zeros(2, 1, 75, 80))
    rows = [detections(first), detections(second)]
    united = unite(network, [rows], [view], (150, 160))
    everything = torch.cat([view.boxes_to(d.boxes, row, (150, 160)) for row, d in enumerate(rows)])
    scores, classes = torch.cat([d.scores for d in rows]), torch.cat([d.classes for d in rows])
    assert (united.scores.diff() <= 0).all()
    for label in classes.unique():
        best = scores[classes == label].max()
        assert best in united.scores[united.classes == label]
    assert all((everything - box).abs().amax(1).min() < 1e-3 for box in united.boxes)


@given(st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_boxes_go_to_a_view_and_back(seed):
    boxes = torch.rand(5, 4, generator=torch.Generator().manual_seed(seed)) * 100
    view = View((75, 128), [], torch.zeros(2, 1, 75, 128))
    for row, placed in enumerate(view.boxes_from(boxes, (150, 250))):
        assert torch.allclose(view.boxes_to(placed, row, (150, 250)), boxes, atol=1e-3)


@pytest.mark.parametrize("scales", [(), (0.0,), (1.0, -1.0)])
def test_scales_must_be_positive(scales):
    with pytest.raises(ConfigError, match="views need at least one scale"):
        ViewSettings(scales)
