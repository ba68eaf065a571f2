"""Does an exported file compute what the network does? Both are run on the same images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from jaxtyping import UInt8

from cupola.models import NetworkPrediction, PanopticNetwork
from cupola.models.merge import merge_panoptic

SEMANTIC_BOUND = 1e-3
"""Share of pixels whose semantic class may differ: near ties of two logits."""

OBJECTS_BOUND = 0.05
"""Share of objects that may have no partner: near ties in a choice of the best, or at an IoU threshold."""

SAME_BOX, SAME_SCORE = 0.05, 1e-3
"""Partners: no side further apart than this [px], scores closer than this, and the same class."""

MASK_BOUND = 1e-3
"""Share of the pixels of partners' masks that may differ: probabilities near one half."""

ERRORS_ONLY = 3
"""onnxruntime's log level; below it warns that the score threshold can be given, which is intended."""


@dataclass(frozen=True)
class Differences:
    """Of a file's result and the network's for one image. semantic: share of pixels; objects: share of the objects of
    either side without a partner; masks: share of the pixels of partners' masks; box [px], score: largest, of partners;
    panoptic: share of the pixels; merge: number of pixels in which the file's map is not the merge of what the file
    itself has found."""

    semantic: float
    objects: float
    masks: float
    box: float
    score: float
    panoptic: float
    merge: int

    @property
    def within_bounds(self) -> bool:
        """Whether only near ties differ. (The map itself has no bound: a near tie may decide over a whole segment.)"""
        return (
            self.semantic <= SEMANTIC_BOUND
            and self.objects <= OBJECTS_BOUND
            and self.masks <= MASK_BOUND
            and self.merge == 0
        )


def open_session(path: Path, threads: int = 0) -> onnxruntime.InferenceSession:
    """The file in onnxruntime on the CPU; 0 threads: as many as there are cores."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run_session(
    session: onnxruntime.InferenceSession, image: UInt8[np.ndarray, "h w 3"], threshold: float
) -> dict[str, np.ndarray]:
    """The outputs by name."""
    names = [output.name for output in session.get_outputs()]
    values = session.run(names, {"image": image, "score_threshold": np.array(threshold, np.float32)})
    return {name: np.asarray(value) for name, value in zip(names, values, strict=True)}


def compare(
    network: PanopticNetwork,
    session: onnxruntime.InferenceSession,
    image: UInt8[np.ndarray, "h w 3"],
    threshold: float,
    things: tuple[int, ...],
    stuff: tuple[int, ...],
) -> Differences:
    """Runs both on one image. things, stuff: the pseudo classes of the network's classes."""
    tensor = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).float() / 255
    expected = network.predict([tensor], score_threshold=threshold)[0]
    found = run_session(session, image, threshold)
    channels = _places(found["semantic"], (-1, *stuff))
    classes = _places(found["classes"], things)
    merge = network.settings.merge
    merged, _ = merge_panoptic(
        channels,
        torch.from_numpy(found["masks"]),
        torch.from_numpy(found["scores"]),
        classes,
        score_threshold=threshold,
        overlap=merge.overlap,
        stuff_area=max(float(merge.stuff_area), merge.stuff_share * image.shape[0] * image.shape[1]),
    )
    return Differences(
        semantic=float((channels != expected.semantic.argmax(0)).float().mean()),
        panoptic=float((torch.from_numpy(found["panoptic"]) != expected.panoptic).float().mean()),
        merge=int((torch.from_numpy(found["panoptic"]) != merged).sum()),
        **_objects(found, classes, expected),
    )


def _places(values: np.ndarray, known: tuple[int, ...]) -> torch.Tensor:
    """Where each value stands in `known`, int64."""
    order = np.argsort(known)
    return torch.from_numpy(order[np.searchsorted(np.asarray(known)[order], values)] if known else values)


def _objects(found: dict[str, np.ndarray], classes: torch.Tensor, expected: NetworkPrediction) -> dict[str, Any]:
    """The fields of `Differences` on objects. Partners are sought one to one, the expected best first."""
    boxes, scores = torch.from_numpy(found["boxes"]), torch.from_numpy(found["scores"])
    pairs: list[tuple[int, int]] = []
    free = torch.ones(len(boxes), dtype=torch.bool)
    for number in range(len(expected.boxes)):
        apart = (boxes - expected.boxes[number]).abs().amax(1)
        near = free & (apart < SAME_BOX) & (classes == expected.classes[number])
        near &= (scores - expected.scores[number]).abs() < SAME_SCORE
        if near.any():
            partner = int(torch.where(near, apart, torch.inf).argmin())
            free[partner] = False
            pairs.append((partner, number))
    total = max(len(boxes), len(expected.boxes))
    if not pairs:
        return {"objects": float(total > 0), "masks": 0.0, "box": 0.0, "score": 0.0}
    ours, theirs = (torch.tensor(side) for side in zip(*pairs, strict=True))
    masks = torch.from_numpy(found["masks"])[ours]
    pixels = (masks | expected.masks[theirs]).sum().clamp(min=1)
    return {
        "objects": 1 - len(pairs) / total,
        "masks": float((masks != expected.masks[theirs]).sum() / pixels),
        "box": float((boxes[ours] - expected.boxes[theirs]).abs().max()),
        "score": float((scores[ours] - expected.scores[theirs]).abs().max()),
    }
