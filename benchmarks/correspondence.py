"""Errors of flow and disparity against truth, method by method, and the CPU time of a clip.

    python benchmarks/correspondence.py SHARED [--weights FILE ...] [--updates 12 24] [--cache DIR]

SHARED is the folder with `data/` (see its README): disparity is scored on kitti15_stereo (lidar truth), flow on the
first pair of each sequence of kitti_odometry. Flow truth is made here: the static lidar points, moved by the camera's
motion. That motion is fitted (PnP) to Lucas-Kanade tracks of the points, so it owes nothing to the methods compared.

Columns: share of the truth that the method knows, mean end-point error and share above 3 px of what it knows, the same
where all methods know, CPU seconds. Take one thread (OMP_NUM_THREADS=1) for CPU seconds that mean something.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import cv2
import numpy as np

from cupola.correspondence import ClassicalCorrespondence, CorrespondenceProvider, RaftCorrespondence
from cupola.data import open_dataset
from cupola.progress import progress
from cupola.types import Calibration, StereoClip

FIRST_MOVING = 252
"""SemanticKITTI labels from here on move; 0 and 1 are unlabelled."""
TRACKED, MAX_LOOP, MAX_REPROJECTION = 6000, 0.3, 1.0
"""Points tracked a pair; there and back [px]; error of an inlier of the fit [px]."""
BAD = 3.0
"""KITTI's bound of a wrong pixel [px]."""

Rows = dict[str, list[tuple[np.ndarray, float]]]
"""Method -> (error of each true pixel [px], NaN = unknown; CPU seconds) of each frame."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path)
    parser.add_argument("--weights", type=Path, nargs="*", default=[])
    parser.add_argument("--updates", type=int, nargs="*", default=[0])
    parser.add_argument("--cache", type=Path, default=None)
    parser.add_argument("--limit", type=int, default=None, help="at most this many frames of each kind")
    arguments = parser.parse_args()
    methods: dict[str, CorrespondenceProvider] = {"classical": ClassicalCorrespondence()}
    for weights in arguments.weights:
        for updates in arguments.updates:
            name = f"{weights.stem}, {updates or 'published'} updates"
            methods[name] = RaftCorrespondence(weights, updates=updates, cache=arguments.cache)
    report("disparity", disparity_errors(arguments.shared / "data" / "kitti15_stereo", methods, arguments.limit))
    report("flow", flow_errors(arguments.shared / "data" / "kitti_odometry", methods, arguments.limit))


def disparity_errors(root: Path, methods: dict[str, CorrespondenceProvider], limit: int | None) -> Rows:
    rows: Rows = {name: [] for name in methods}
    dataset = open_dataset(root)
    for record in progress(dataset.records[:limit], "disparity"):
        frame = dataset.frame(record)
        path = root / "training" / "disp_occ_0" / f"{record.key}.png"
        truth = cv2.imread(str(path), cv2.IMREAD_UNCHANGED).astype(np.float32) / 256
        for name, method in methods.items():
            start = time.process_time()
            disparity, _ = method.disparity(frame)
            rows[name].append((np.abs(disparity - truth)[truth > 0], time.process_time() - start))
    return rows


def flow_errors(root: Path, methods: dict[str, CorrespondenceProvider], limit: int | None) -> Rows:
    rows: Rows = {name: [] for name in methods}
    dataset = open_dataset(root)
    first_pairs = list({first.sequence: (first, second) for first, second in reversed(dataset.pairs())}.values())[::-1]
    for pair in progress(first_pairs[:limit], "flow"):
        clip = dataset.clip(pair)
        labels = root / "sequences" / pair[0].sequence / "labels_image_2" / f"{clip.key.split('_')[-1]}.npz"
        x, y, truth = true_flow(clip, labels)
        for name, method in methods.items():
            start = time.process_time()
            flow = method(clip).flow
            seconds = time.process_time() - start
            rows[name].append((np.hypot(*(flow[:, y, x] - truth)), seconds))
    return rows


def true_flow(clip: StereoClip, labels: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(x, y, flow 2 n [px]) of the static lidar points that stay in the image."""
    with np.load(labels) as file:
        static = (file["label"] > 1) & (file["label"] < FIRST_MOVING)
        y, x, depth = (file[name][static] for name in ("row", "col", "depth"))
    camera = clip.calibration
    points = np.stack([(x - camera.cx) / camera.fx, (y - camera.cy) / camera.fy, np.ones_like(depth)]) * depth
    moved = _projected(points.T.astype(np.float64), camera, *_camera_motion(clip, x, y, points.T))
    height, width = clip.first.size
    inside = (moved >= 0).all(1) & (moved[:, 0] <= width - 1) & (moved[:, 1] <= height - 1)
    return x[inside], y[inside], (moved - np.stack([x, y], 1))[inside].T


def _camera_motion(clip: StereoClip, x: np.ndarray, y: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(rotation vector, translation [m]) of the points between the two frames."""
    some = np.random.default_rng(0).permutation(len(x))[:TRACKED]
    start = np.stack([x, y], 1)[some].astype(np.float32)
    grey = [cv2.cvtColor(frame.left, cv2.COLOR_RGB2GRAY) for frame in (clip.first, clip.second)]
    options = {"winSize": (21, 21), "maxLevel": 5}
    there, found, _ = cv2.calcOpticalFlowPyrLK(grey[0], grey[1], start, None, **options)
    back, found_back, _ = cv2.calcOpticalFlowPyrLK(grey[1], grey[0], there, None, **options)
    good = (found & found_back).ravel().astype(bool) & (np.linalg.norm(back - start, axis=1) < MAX_LOOP)
    matrix = clip.calibration.matrix()
    cv2.setRNGSeed(0)
    _, rotation, translation, inliers = cv2.solvePnPRansac(
        points[some][good].astype(np.float64), there[good].astype(np.float64), matrix, None,
        iterationsCount=1000, reprojectionError=MAX_REPROJECTION,
    )  # fmt: skip
    kept = inliers.ravel()
    return cv2.solvePnPRefineLM(
        points[some][good][kept].astype(np.float64), there[good][kept].astype(np.float64), matrix, None,
        rotation, translation,
    )  # fmt: skip


def _projected(points: np.ndarray, camera: Calibration, rotation: np.ndarray, translation: np.ndarray) -> np.ndarray:
    return cv2.projectPoints(points, rotation, translation, camera.matrix(), None)[0].reshape(-1, 2)


def report(title: str, rows: Rows) -> None:
    """Prints a line a method."""
    errors = {name: np.concatenate([error for error, _ in frames]) for name, frames in rows.items()}
    shared = np.all([np.isfinite(error) for error in errors.values()], axis=0)
    frames = len(next(iter(rows.values())))
    print(f"\n{title}: {frames} frames, {len(shared)} true pixels, {shared.mean():.1%} known to all methods")
    print(f"{'':34}{'known':>8}{'error':>8}{'> 3 px':>8}   |{'error':>8}{'> 3 px':>8} where all know{'CPU s':>8}")
    for name, error in errors.items():
        known = error[np.isfinite(error)]
        seconds = np.median([second for _, second in rows[name]])
        print(
            f"{name:34}{len(known) / len(error):8.1%}{known.mean():8.2f}{(known > BAD).mean():8.1%}   |"
            f"{error[shared].mean():8.2f}{(error[shared] > BAD).mean():8.1%}{'':15}{seconds:8.1f}"
        )


if __name__ == "__main__":
    main()
