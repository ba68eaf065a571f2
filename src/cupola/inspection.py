"""What a data set holds and how good its stereo and flow are: what to know before spending a night on it."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8

from cupola.correspondence import ClassicalCorrespondence
from cupola.data import FrameRecord, StereoDataset, open_dataset
from cupola.errors import ConfigError
from cupola.progress import progress
from cupola.types import Calibration, Correspondence, StereoClip, StereoFrame

# Verdicts. The figures were set by looking at KITTI (rectification 0.1-0.3 px, coverage 0.8-0.95) and at what the later
# stages need; they are advice, nothing depends on them.
GOOD_RECTIFICATION = 0.5
"""Median vertical error [px] up to which block matching loses nothing: it compares rows of one height."""
UNSYNCHRONISED = 5.0
"""A median vertical error [px] that is seldom the rectification alone."""
USABLE_RECTIFICATION = 1.0
"""Above this median vertical error [px] stereo fails on horizontal texture: the cameras should be rectified again."""
GOOD_COVERAGE = 0.6
"""Share of pixels with a disparity; the rest is sky, occluded or without texture."""
POOR_COVERAGE = 0.35
GOOD_CONSISTENCY = 0.6
"""Share of pixels whose flow survives the check forward and backward."""
POOR_CONSISTENCY = 0.35
STILL = 0.5
"""Median flow [px] below which the camera stands, or the frames are nearly the same."""
FAST_SHARE = 0.04
"""Median flow above this share of the image's width is fast: KITTI on a motorway at 10 Hz has 0.027."""
DEPTH_RANGE = (1.0, 200.0)
"""Median depth [m] outside which the baseline or the focal length is probably in another unit."""
CENTRE_SHARE = 0.25
"""A principal point outside the middle half of the image belongs, as a rule, to another image size."""

MAX_FEATURES = 2000
"""SIFT features an image."""
RATIO = 0.75
"""Nearest over second nearest descriptor distance of an accepted match (Lowe, 2004, gives 0.8)."""
MIN_MATCHES = 30
"""Fewer matches say nothing about the rectification."""
OUTLIER_DEVIATIONS = 6.0
"""Matches farther than this many median absolute deviations (but 3 px at least) off the median are false ones."""
MIN_OUTLIER_DISTANCE = 3.0


@dataclass(frozen=True)
class SequenceSummary:
    """One sequence: number of frames and pairs, where frames are missing (keys before and after each gap), image size
    (height, width) [px] on disk and calibration at that size."""

    name: str
    frames: int
    pairs: int
    gaps: tuple[tuple[str, str], ...]
    size: tuple[int, int]
    calibration: Calibration
    calibration_source: str


@dataclass(frozen=True)
class Finding:
    """One judgement. value: the measure in words and figures; verdict: what it means and what to do; good: False where
    something should be done, None where it can't be said."""

    subject: str
    value: str
    verdict: str
    good: bool | None


@dataclass(frozen=True)
class StereoMeasure:
    """Measured on one stereo frame. vertical: y of the right minus y of the left point of each match [px]; horizontal:
    x of the left minus x of the right point (the disparity) [px]; coverage: share of valid pixels with a disparity;
    depth: median [m], NaN where no pixel has one."""

    vertical: Float64[np.ndarray, "n"]
    horizontal: Float64[np.ndarray, "n"]
    coverage: float
    depth: float


@dataclass(frozen=True)
class FlowMeasure:
    """Measured on one pair. magnitude: median length of the flow that is consistent [px], NaN where none is;
    consistent: share of valid pixels whose flow is."""

    magnitude: float
    consistent: float


@dataclass(frozen=True)
class Inspection:
    """Result of `inspect`. frames, pairs: of the whole data set; measured: keys of the frames that were measured."""

    layout: str
    root: Path
    scale: float
    frames: int
    pairs: int
    sequences: tuple[SequenceSummary, ...]
    notes: tuple[str, ...]
    measured: tuple[str, ...]
    findings: tuple[Finding, ...]

    @property
    def healthy(self) -> bool:
        """Whether no finding asks for something to be done."""
        return all(finding.good is not False for finding in self.findings)


def summarise(dataset: StereoDataset) -> tuple[SequenceSummary, ...]:
    """One summary a sequence; opens the header of one image each. Raises `ImageError`."""
    pairs = Counter(first.sequence for first, _ in dataset.pairs())
    gaps: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for gap in dataset.gaps():
        gaps[gap.sequence].append((gap.before, gap.after))
    return tuple(
        SequenceSummary(
            name=name,
            frames=len(frames),
            pairs=pairs[name],
            gaps=tuple(gaps[name]),
            size=dataset.source_size(frames[0]),
            calibration=frames[0].calibration,
            calibration_source=frames[0].calibration_source,
        )
        for name, frames in dataset.sequences.items()
    )


def match_stereo(
    left: UInt8[np.ndarray, "h w 3"], right: UInt8[np.ndarray, "h w 3"]
) -> tuple[Float64[np.ndarray, "n 2"], Float64[np.ndarray, "n 2"]]:
    """Points (x, y) [px] that match between two images: SIFT, ratio test and cross-check; anywhere in the image, so
    that a gross error of rectification shows too."""
    sift = cv2.SIFT.create(nfeatures=MAX_FEATURES)
    points_left, descriptors_left = sift.detectAndCompute(cv2.cvtColor(left, cv2.COLOR_RGB2GRAY), None)
    points_right, descriptors_right = sift.detectAndCompute(cv2.cvtColor(right, cv2.COLOR_RGB2GRAY), None)
    if len(points_left) < 2 or len(points_right) < 2:
        return np.zeros((0, 2)), np.zeros((0, 2))
    matcher = cv2.BFMatcher(cv2.NORM_L2)
    there, back = (
        {best.queryIdx: best.trainIdx for best, second in matches if best.distance < RATIO * second.distance}
        for matches in (
            matcher.knnMatch(descriptors_left, descriptors_right, k=2),
            matcher.knnMatch(descriptors_right, descriptors_left, k=2),
        )
    )
    agreed = [(i, j) for i, j in there.items() if back.get(j) == i]
    at_left = np.array([points_left[i].pt for i, _ in agreed], np.float64).reshape(-1, 2)
    at_right = np.array([points_right[j].pt for _, j in agreed], np.float64).reshape(-1, 2)
    return at_left, at_right


def without_outliers(vertical: Float64[np.ndarray, "n"]) -> Float64[np.ndarray, "m"]:
    """Vertical distances of matches [px] without those of false matches."""
    if len(vertical) == 0:
        return vertical
    distance = np.abs(vertical - np.median(vertical))
    kept: Float64[np.ndarray, "m"] = vertical[
        distance <= max(MIN_OUTLIER_DISTANCE, OUTLIER_DEVIATIONS * float(np.median(distance)))
    ]
    return kept


def measure_stereo(
    frame: StereoFrame, disparity: Float32[np.ndarray, "h w"], known: Bool[np.ndarray, "h w"]
) -> StereoMeasure:
    """Rectification error, disparity coverage and depth of one frame with its disparity [px]."""
    left, right = match_stereo(frame.left, frame.right)
    usable = known & frame.valid
    return StereoMeasure(
        vertical=right[:, 1] - left[:, 1],
        horizontal=left[:, 0] - right[:, 0],
        coverage=float(usable.sum() / max(1, frame.valid.sum())),
        depth=_median(frame.calibration.fx * frame.calibration.baseline / disparity[usable].astype(np.float64)),
    )


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if values.size else float("nan")


def judge_rectification(measures: list[StereoMeasure]) -> Finding:
    """Vertical distance of matched points: 0 in a rectified pair."""
    subject = "rectification"
    vertical = without_outliers(np.concatenate([measure.vertical for measure in measures]))
    horizontal = np.concatenate([measure.horizontal for measure in measures])
    if len(vertical) < MIN_MATCHES:
        value = f"{len(vertical)} points match"
        return Finding(subject, value, "too few to judge: is it dark, blurred, or are these not left and right?", False)
    middle, high = np.percentile(np.abs(vertical), [50, 95])
    offset = float(np.median(vertical))
    value = f"{middle:.2f} px median, {high:.2f} px 95 % ({len(vertical)} points)"
    if np.median(horizontal) < 0:
        return Finding(
            subject, value, "near points lie farther right in the right images: exchange left and right", False
        )
    if middle <= GOOD_RECTIFICATION:
        return Finding(subject, value, "good", True)
    lower = "lower" if offset > 0 else "higher"
    shift = f"; the right images sit {abs(offset):.1f} px {lower}" if abs(offset) > 0.7 * middle else ""
    if middle <= USABLE_RECTIFICATION:
        return Finding(
            subject, value, f"usable, but off by {middle:.1f} px: rectify again for better stereo{shift}", True
        )
    timing = ", or the cameras don't expose at one moment" if middle > UNSYNCHRONISED else ""
    return Finding(subject, value, f"rectification is off by {middle:.1f} px: rectify again{timing}{shift}", False)


def judge_coverage(measures: list[StereoMeasure]) -> Finding:
    """How much of the images has a disparity."""
    share = float(np.mean([measure.coverage for measure in measures]))
    value = f"{share:.0%} of the pixels"
    if share >= GOOD_COVERAGE:
        return Finding("disparity", value, "good", True)
    if share >= POOR_COVERAGE:
        return Finding("disparity", value, "fair: much sky, darkness or plain surfaces, or the rectification", True)
    return Finding("disparity", value, "poor: look at rectification, exposure and sharpness of both cameras", False)


def judge_depth(measures: list[StereoMeasure]) -> Finding:
    """Whether the scene has a size that cameras see."""
    depth = _median(np.array([measure.depth for measure in measures if np.isfinite(measure.depth)]))
    if not np.isfinite(depth):
        return Finding("depth", "unknown", "no pixel has a disparity", False)
    value = f"{depth:.3g} m median"
    if DEPTH_RANGE[0] <= depth <= DEPTH_RANGE[1]:
        return Finding("depth", value, "plausible for a street", True)
    return Finding(
        "depth", value, "hardly a street: is the baseline in metres, and fx in pixels of these images?", False
    )


def judge_flow(measures: list[FlowMeasure], width: int) -> tuple[Finding, Finding]:
    """How far things move between frames, and how much of the flow holds. width: of the images at hand [px]."""
    magnitude = _median(np.array([measure.magnitude for measure in measures if np.isfinite(measure.magnitude)]))
    share = float(np.mean([measure.consistent for measure in measures]))
    value = f"{magnitude:.1f} px median" if np.isfinite(magnitude) else "unknown"
    if not np.isfinite(magnitude):
        motion = Finding("motion", value, "no flow is consistent: are these successive frames?", False)
    elif magnitude < STILL:
        motion = Finding("motion", value, "the camera stands, or the frames hardly differ: only movers will show", True)
    elif magnitude > FAST_SHARE * width:
        motion = Finding("motion", value, "fast: a higher frame rate or a smaller --scale would help", False)
    else:
        motion = Finding("motion", value, "good", True)
    value = f"{share:.0%} of the pixels"
    if share >= GOOD_CONSISTENCY:
        return motion, Finding("consistent flow", value, "good", True)
    if share >= POOR_CONSISTENCY:
        return motion, Finding("consistent flow", value, "fair: expect objects to be missed", True)
    return motion, Finding("consistent flow", value, "poor: too fast, too dark, or not successive frames", False)


def judge_pairs(dataset: StereoDataset, sequences: tuple[SequenceSummary, ...]) -> Finding:
    """Whether there is video to learn from."""
    pairs, gaps = sum(sequence.pairs for sequence in sequences), sum(len(sequence.gaps) for sequence in sequences)
    value = f"{pairs} from {len(dataset)} frames" + (f", {gaps} {'gap' if gaps == 1 else 'gaps'}" if gaps else "")
    if pairs == 0:
        return Finding(
            "pairs", value, "no frame has a successor: motion can't be seen; only `cupola semantics` will run", False
        )
    if gaps:
        before, after = next(gap for sequence in sequences for gap in sequence.gaps)
        return Finding("pairs", value, f"nothing is paired across a gap; the first is {before} to {after}", True)
    return Finding("pairs", value, "good: no gap", True)


def judge_calibration(sequences: tuple[SequenceSummary, ...]) -> Finding:
    """Whether the principal point lies where images have it."""
    for sequence in sequences:
        height, width = sequence.size
        calibration = sequence.calibration
        off = max(abs((calibration.cx + 0.5) / width - 0.5), abs((calibration.cy + 0.5) / height - 0.5))
        if off > CENTRE_SHARE:
            value = f"principal point ({calibration.cx:.0f}, {calibration.cy:.0f}) in {width} x {height}"
            verdict = f"far off the centre in {sequence.name}: is the calibration for this image size?"
            return Finding("calibration", value, verdict, False)
    views = np.degrees([2 * np.arctan(part.size[1] / 2 / part.calibration.fx) for part in sequences])
    low, high = float(views.min()), float(views.max())
    value = f"{low:.0f}° wide" if high - low < 1 else f"{low:.0f}° to {high:.0f}° wide"
    return Finding("calibration", value, "plausible: the principal point is near the centre", True)


def _spread(items: tuple[tuple[FrameRecord, ...], ...], count: int) -> list[tuple[FrameRecord, ...]]:
    """At most `count` items, evenly spread: the middle one of each of `count` equal parts."""
    count = min(count, len(items))
    return [items[(2 * i + 1) * len(items) // (2 * count)] for i in range(count)]


def measure_flow(clip: StereoClip, correspondence: Correspondence) -> FlowMeasure:
    """Length of the flow and how much of it is consistent."""
    usable = correspondence.flow_valid & clip.first.valid
    length = np.linalg.norm(correspondence.flow[:, usable].astype(np.float64), axis=0)
    return FlowMeasure(_median(length), float(usable.sum() / max(1, clip.first.valid.sum())))


def inspect(data: Path, *, layout: str = "auto", scale: float = 1.0, frames: int = 4, seed: int = 0) -> Inspection:
    """Says what a data set holds and measures, on a few frames, how good its stereo and flow are.

    Args:
        data: directory of the data set
        layout: name of its layout, or auto to find out
        scale: factor for the size of the images
        frames: how many frames to measure, evenly spread; 0 measures none and is quick
        seed: seed of the random draws in the flow

    Raises:
        DataError: (or one of its kinds) the data set can't be opened or an image can't be read
        ConfigError: a setting is wrong
    """
    if frames < 0:
        raise ConfigError(f"--frames must be 0 or more, not {frames}")
    dataset = open_dataset(data, layout, scale)
    sequences = summarise(dataset)
    findings = [judge_pairs(dataset, sequences), judge_calibration(sequences)]
    pairs = dataset.pairs()
    chosen = _spread(pairs or tuple((record,) for record in dataset.records), frames)
    correspondence = ClassicalCorrespondence(seed=seed)
    stereo: list[StereoMeasure] = []
    flow: list[FlowMeasure] = []
    for records in progress(chosen, "measuring"):
        if len(records) == 2:
            clip = dataset.clip((records[0], records[1]))
            found = correspondence(clip)
            stereo.append(measure_stereo(clip.first, found.disparity, found.disparity_valid))
            flow.append(measure_flow(clip, found))
        else:
            frame = dataset.frame(records[0])
            stereo.append(measure_stereo(frame, *correspondence.disparity(frame)))
    if stereo:
        findings += [judge_rectification(stereo), judge_coverage(stereo), judge_depth(stereo)]
    if flow:
        findings += judge_flow(flow, round(sequences[0].size[1] * scale))
    return Inspection(
        layout=dataset.layout,
        root=data,
        scale=scale,
        frames=len(dataset),
        pairs=len(pairs),
        sequences=sequences,
        notes=dataset.notes,
        measured=tuple(records[0].key for records in chosen),
        findings=tuple(findings),
    )
