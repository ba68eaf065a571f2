"""`cupola predict`: images from anywhere, COCO panoptic files, overlays and a report."""

from __future__ import annotations

import glob
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from cupola.config import save_config
from cupola.data import open_dataset
from cupola.diagnosis import installed_versions
from cupola.errors import DataError, ImageError
from cupola.io import IMAGE_SUFFIXES, read_rgb, write_rgb
from cupola.io.coco_panoptic import Annotation, write_index, write_map
from cupola.prediction.predictor import Prediction, Predictor, load
from cupola.progress import progress
from cupola.report import Gallery, Page, Table, write_page

REPORT_ROWS = 24
"""Images shown in the report of a prediction run; more would make the file too large to open."""


@dataclass(frozen=True)
class PredictionRun:
    """What `cupola predict` made: panoptic.json, panoptic/, overlays/ and report.html under `out`."""

    out: Path
    keys: tuple[str, ...]
    failures: tuple[str, ...]
    report: Path


@dataclass(frozen=True)
class _Source:
    """An image to predict: its name in the results, and how to read it."""

    key: str
    name: str
    read: Callable[[], np.ndarray]


def _unique_keys(paths: Sequence[Path]) -> list[str]:
    """File stems; where they repeat, as many parent folders before them as it takes."""
    for depth in range(1, 8):
        keys = ["_".join((*path.parts[:-1][-depth + 1 :], path.stem)) if depth > 1 else path.stem for path in paths]
        if len(set(keys)) == len(keys):
            return keys
    return [f"{number:06d}_{path.stem}" for number, path in enumerate(paths)]


def _folder_sources(folder: Path) -> list[_Source]:
    """The left images of a data set, under its keys; else the images in the folder, or anywhere below it."""
    try:
        dataset = open_dataset(folder)
    except DataError:
        paths = [p for p in sorted(folder.iterdir()) if p.suffix.lower() in IMAGE_SUFFIXES]
        return _file_sources(paths or [p for p in sorted(folder.rglob("*")) if p.suffix.lower() in IMAGE_SUFFIXES])
    return [_Source(record.key, str(record.left), partial(dataset.left, record)) for record in dataset.records]


def _file_sources(paths: Sequence[Path]) -> list[_Source]:
    return [
        _Source(key, str(path), partial(read_rgb, path)) for key, path in zip(_unique_keys(paths), paths, strict=True)
    ]


def _sources(images: Sequence[Path]) -> list[_Source]:
    """Everything that `images` names: files, folders, data sets, patterns. Raises `DataError` where it is nothing."""
    if len(images) == 1 and images[0].is_dir():
        found = _folder_sources(images[0])
    else:
        paths: list[Path] = []
        for image in images:
            if image.is_dir():
                paths += [p for p in sorted(image.iterdir()) if p.suffix.lower() in IMAGE_SUFFIXES]
            elif glob.has_magic(str(image)) and not image.exists():
                paths += sorted(Path(p) for p in glob.glob(str(image), recursive=True))  # noqa: PTH207 (absolute patterns too)
            else:
                paths.append(image)
        found = _file_sources(paths)
    if not found:
        kinds = " ".join(IMAGE_SUFFIXES)
        raise DataError(
            f"there is no image at {', '.join(map(str, images))} (looked for {kinds}); name files or a folder"
        )
    return found


def predict(
    images: list[Path],
    *,
    model: Path,
    out: Path,
    threshold: float = 0.5,
    batch: int = 4,
    device: str = "auto",
) -> PredictionRun:
    """Panoptic maps of single images: COCO panoptic files, overlays and a report.

    Images that cannot be read are left out and named at the end.

    Args:
        images: image files, folders of images, patterns such as 'photos/*.jpg', or one data set (its left images).
        model: directory that `cupola train` or `cupola weights convert` wrote, a published checkpoint, a name such as
            cups (`cupola weights list`), or a Hugging Face repository as user/name.
        out: directory for panoptic.json, panoptic/, overlays/ and report.html.
        threshold: score from which an object counts, 0 to 1.
        batch: images that go through the network together.
        device: auto, cpu or cuda.

    Raises:
        CheckpointError: there is no usable network at `model`.
        DownloadError: it is not on this machine and cannot be fetched.
        DataError: there is no image, or none can be read.
    """
    predictor = load(model, device=device, threshold=threshold)
    sources = _sources(images)
    facts = {"model": str(model), "threshold": str(threshold), **installed_versions()}
    save_config(
        out / "config.yaml", images=images, model=model, out=out, threshold=threshold, batch=batch, device=device
    )
    return predict_sources([(s.key, s.name, s.read) for s in sources], predictor, out, batch, facts)


def predict_sources(
    sources: Sequence[tuple[str, str, Callable[[], np.ndarray]]],
    predictor: Predictor,
    out: Path,
    batch: int,
    facts: Mapping[str, str],
) -> PredictionRun:
    """Predicts (key, name, reader) after (key, name, reader), in batches, and writes everything. See `predict`."""
    annotations: list[Annotation] = []
    failures: list[str] = []
    shown: list[tuple[str, list[np.ndarray | None]]] = []
    every = max(1, len(sources) // REPORT_ROWS)
    with progress(range(0, len(sources), batch), "predict", total=-(-len(sources) // batch)) as steps:
        for start in steps:
            keys, names, pixels = [], [], []
            for key, name, read in sources[start : start + batch]:
                try:
                    pixels.append(read())
                except ImageError as error:
                    failures.append(str(error))
                    continue
                keys.append(key)
                names.append(name)
            for key, name, prediction in zip(keys, names, predictor.batch(pixels) if pixels else [], strict=True):
                annotations.append(_write_one(out, key, name, prediction))
                if len(annotations) % every == 0 or len(sources) <= REPORT_ROWS:
                    shown.append((key, [prediction.image, prediction.overlay()]))
    if not annotations:
        raise DataError(f"none of the {len(sources)} images could be read; the first: {failures[0]}")
    write_index(out / "panoptic.json", annotations, predictor.classes.categories(), dict(facts))
    report = out / "report.html"
    write_page(report, _page(predictor, annotations, failures, shown[:REPORT_ROWS], facts))
    return PredictionRun(out, tuple(a.key for a in annotations), tuple(failures), report)


def _write_one(out: Path, key: str, name: str, prediction: Prediction) -> Annotation:
    ids, segments = prediction.segment_ids()
    write_map(out / "panoptic" / f"{key}.png", ids)
    write_rgb(out / "overlays" / f"{key}.png", prediction.overlay())
    return Annotation(key, f"{key}.png", name, ids.shape[0], ids.shape[1], segments)


def _page(
    predictor: Predictor,
    annotations: Sequence[Annotation],
    failures: Sequence[str],
    shown: Sequence[tuple[str, list[np.ndarray | None]]],
    facts: Mapping[str, str],
) -> Page:
    classes = predictor.classes
    legend = [(f"{classes.names[c]} (thing)", classes.colors[c]) for c in classes.things]
    legend += [(classes.names[c], classes.colors[c]) for c in classes.stuff]
    objects = sum(s.is_thing for a in annotations for s in a.segments)
    lead = f"{len(annotations)} images, {objects} objects, at a score of at least {predictor.threshold}."
    gallery = Gallery(
        "Images and panoptic maps", ["image", "panoptic map"], shown, "Dark: nothing was recognised.", [*legend]
    )
    blocks: list[Table | Gallery] = [gallery]
    if failures:
        blocks.append(Table("Images that could not be read", ["what went wrong"], [[failure] for failure in failures]))
    return Page("Predictions", lead, blocks, facts)
