"""Pseudo classes learnt by `cupola learn semantics` against k-means on the features they are learnt from.

    python benchmarks/learn_semantics.py [DATA] [--seeds 3] [--architecture dino_resnet50] [--level 2]
                                         [--recipe depth-only ...] [--weights FILE] [--work DIRECTORY]

DATA is a data set with truth; without it, 60 frames of 30 rendered streets (192 x 384 px) are made. Both are scored
alike: one pass over each whole image at the scale that was learnt from, a class for every cell, scores enlarged to
pixels, pseudo classes matched to the classes that occur (`cupola.evaluation`), mIoU over all images. Depth is classical
correspondence. k-means is given the same number of classes and every choice: features as they are or standardised,
compared by distance or by cosine; its best line is the one to beat. A backbone without --weights is random.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import mean, pstdev

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import cv2
import numpy as np
import torch

from cupola.data import StereoDataset, open_dataset
from cupola.data.synthetic import render
from cupola.evaluation import ConfusionMatrix, match_classes
from cupola.semantics.backbones import BackboneSettings, load_backbone, normalised, random_backbone
from cupola.semantics.clustering import weighted_kmeans
from cupola.semantics.depthg.checkpoint import read_depthg
from cupola.semantics.learning import RECIPES, SmallRecipe, learn_semantics
from cupola.taxonomy import CITYSCAPES_27

POINTS = 20_000
"""Cells that k-means is fitted on."""

STREET = 1
"""Seed of the rendered streets. The numbers of depth-only were chosen on those of seed 0."""

Scores = Callable[[np.ndarray], np.ndarray]
"""Features of cells (n x c) -> a score for each class (n x k)."""


def grids(dataset: StereoDataset, backbone: torch.nn.Module, side: int) -> list[np.ndarray]:
    """Features (rows x columns x c) of every whole image, at the scale of the views that are learnt from."""
    found = []
    for record in dataset.records:
        image = dataset.left(record)
        scale = side / (min(image.shape[:2]) // 2)
        size = [max(1, round(length * scale / backbone.patch)) * backbone.patch for length in image.shape[:2]]
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        resized = cv2.resize(image, (size[1], size[0]), interpolation=method)
        with torch.inference_mode():
            features = backbone(torch.from_numpy(normalised(resized))[None])[0]
        found.append(features.permute(1, 2, 0).half().numpy())
    return found


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)


def kmeans_scores(sample: np.ndarray, classes: int, seed: int) -> dict[str, Scores]:
    """k-means in each of its four forms, fitted on `sample`."""
    centre, deviation = sample.mean(0), np.maximum(sample.std(0), 1e-6)
    forms: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "as they are, distance": lambda x: x,
        "as they are, cosine": unit,
        "standardised, distance": lambda x: (x - centre) / deviation,
        "standardised, cosine": lambda x: unit((x - centre) / deviation),
    }

    def fitted(form: Callable[[np.ndarray], np.ndarray]) -> Scores:
        points = form(sample).astype(np.float64)
        centres = weighted_kmeans(points, np.ones(len(points)), classes, np.random.default_rng(seed))[0]
        return lambda x: form(x) @ centres.T - 0.5 * (centres**2).sum(1)

    return {f"k-means, {name}": fitted(form) for name, form in forms.items()}


def learnt_scores(weights: Path) -> Scores:
    """Cosines of codes and centres of a written network."""
    network = read_depthg(weights)

    def scores(features: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            code = network.head(torch.from_numpy(features.T.copy())[None, :, :, None])
            return network.probe.log_probabilities(code)[0, :, :, 0].T.numpy()

    return scores


def miou(dataset: StereoDataset, features: list[np.ndarray], scores: Scores, classes: int) -> float:
    """Over all pixels of all images, after matching."""
    confusion = ConfusionMatrix(classes, len(CITYSCAPES_27))
    for record, grid in zip(dataset.records, features, strict=True):
        truth = dataset.truth(record, CITYSCAPES_27)
        assert truth is not None, "the data set holds no truth"
        cells = scores(grid.reshape(-1, grid.shape[-1]).astype(np.float32)).reshape(*grid.shape[:2], -1)
        height, width = truth.classes.shape
        large = [cv2.resize(layer, (width, height)) for layer in np.moveaxis(cells, -1, 0).astype(np.float32)]
        confusion.update(np.argmax(large, axis=0), truth.classes.astype(np.int64))
    return confusion.compute(match_classes(confusion.counts, drop_absent=True)).miou


def measure(dataset: StereoDataset, arguments: argparse.Namespace, recipe: SmallRecipe, seed: int) -> dict[str, float]:
    """mIoU of k-means and of what is learnt, on the backbone of one seed."""
    settings = BackboneSettings(arguments.architecture, arguments.weights, arguments.level)
    if arguments.weights is None:
        backbone = random_backbone(settings.architecture, seed, settings.level)
    else:
        backbone = load_backbone(settings, torch.device("cpu"))
    features = grids(dataset, backbone, recipe.side // backbone.patch * backbone.patch)
    cells = np.concatenate([grid.reshape(-1, grid.shape[-1]) for grid in features])
    chosen = np.random.default_rng(seed).choice(len(cells), min(POINTS, len(cells)), replace=False)
    ways = kmeans_scores(cells[chosen].astype(np.float32), recipe.classes, seed)
    out = arguments.work / f"{arguments.architecture}-{recipe.name}-{seed}"
    result = learn_semantics(dataset.root, out=out, backbone=settings, settings=recipe, seed=seed, workers=1)
    print(f"# {recipe.name}, seed {seed}: {result.steps} steps in {result.seconds:.0f} s", flush=True)
    ways[f"learnt, {recipe.name}"] = learnt_scores(result.weights)
    return {name: miou(dataset, features, scores, recipe.classes) for name, scores in ways.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--architecture", default="dino_resnet50")
    parser.add_argument("--level", type=int, default=2)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--side", type=int, default=192)
    parser.add_argument("--recipe", nargs="+", choices=RECIPES, default=["depth-only"])
    parser.add_argument("--work", type=Path, help="where streets and networks lie; a temporary directory by default")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        arguments.work = arguments.work or Path(folder)
        data = arguments.data or render(arguments.work / "street", seed=STREET, frames=2, sequences=30, workers=1).out
        dataset, found = open_dataset(data), defaultdict(list)
        for name in arguments.recipe:
            for seed in range(arguments.seeds):
                for way, value in measure(dataset, arguments, RECIPES[name](side=arguments.side), seed).items():
                    found[way].append(value)
                    print(f"# {way}: {100 * value:.2f} %", flush=True)
    print(f"{arguments.architecture}, {'random weights' if arguments.weights is None else arguments.weights}")
    for way, values in sorted(found.items()):
        print(f"{way:40}mIoU {100 * mean(values):5.1f} % ± {100 * pstdev(values):.1f} ({len(values)} runs)")


if __name__ == "__main__":
    main()
