"""`cupola predict`: images and videos from anywhere, COCO panoptic files, overlays and a report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cupola.diagnosis import installed_versions
from cupola.errors import ConfigError, DataError, ImageError
from cupola.io.coco_panoptic import Annotation, write_index
from cupola.io.images import holds_several
from cupola.io.video_stream import VideoStream
from cupola.prediction.journal import Journal
from cupola.prediction.predictor import Precision, PredictionSettings, Predictor, load
from cupola.prediction.reading import BATCHES_AHEAD, ahead, is_done, is_video_done, read_batches
from cupola.prediction.report import write_report
from cupola.prediction.sources import ImageSource, Source, VideoSource, find_sources
from cupola.prediction.writing import OVERLAYS, Writer
from cupola.progress import progress
from cupola.runs.directory import claim
from cupola.runs.signals import stopping

MAY_DIFFER = ("images", "model", "out", "names", "batch", "device")
"""Arguments that may change between two parts of a run: the content of network and names is compared instead of their
place, and each image and frame is known by itself."""


@dataclass(frozen=True)
class PredictionRun:
    """What `cupola predict` made: panoptic.json, panoptic/, overlays/ and report.html under `out`.

    keys: of all images and frames; fresh: how many of them this run predicted, the others were there; failures: what
    could not be read; remarks: what was read in part; complete: there are no failures, and no video broke off; seconds:
    how long the network worked, and how long it waited for images and for files to be written.
    """

    out: Path
    keys: tuple[str, ...]
    fresh: int
    failures: tuple[str, ...]
    remarks: tuple[str, ...]
    complete: bool
    seconds: Mapping[str, float]
    report: Path


def predict(
    images: list[Path],
    *,
    model: Path,
    out: Path,
    threshold: float = 0.5,
    names: Path | None = None,
    tta: bool = False,
    overlap: float | None = None,
    stuff_area: float | None = None,
    max_pixels: int = PredictionSettings.max_pixels,
    precision: Precision = "float32",
    every: int = 1,
    legend: bool = True,
    batch: int = 4,
    device: str = "auto",
) -> PredictionRun:
    """Panoptic maps of images and videos: COCO panoptic files, overlays and a report.

    Run again with the same arguments, it goes on where it was stopped. What cannot be read is left out and named at the
    end.

    Args:
        images: images and videos, folders of them, patterns such as 'photos/*.jpg', or one data set (its left images).
        model: directory that `cupola train` or `cupola weights convert` wrote, a published checkpoint, a name such as
            cups (`cupola weights list`), or a Hugging Face repository as user/name.
        out: directory for panoptic.json, panoptic/, overlays/ and report.html.
        threshold: score from which an object counts, 0 to 1.
        names: names of the classes: result.json of `cupola evaluate` (its matching), or YAML or JSON {id: name}.
        tta: ask for six views of each image, enlarged, shrunk and mirrored, which takes six times as long.
        overlap: an object is rejected if more than this share of it is taken by better ones (default: as trained).
        stuff_area: smallest stuff segment, in pixels, or as a share of the image where below 1 (default: as trained).
        max_pixels: larger images are shrunk to so many pixels for the network; the results have the image's size.
        precision: of the network's convolutions and matrix products; bfloat16 is about twice as fast where the
            processor has it.
        every: of a video, take every so-manieth frame.
        legend: name the colours in a strip below each overlay.
        batch: images that go through the network together.
        device: auto, cpu or cuda.

    Raises:
        CheckpointError: there is no usable network at `model`.
        DownloadError: it is not on this machine and cannot be fetched.
        ConfigError: a setting is out of range, or `names` does not name this network's classes.
        DataError: there is no image, or none can be read.
        StoreError: `out` holds predictions of another network or by other settings.
        DiskError: writing failed; what was written before is kept.
    """
    if every < 1 or batch < 1:
        raise ConfigError(f"every and batch must be at least 1, not {every} and {batch}")
    sources = find_sources(images, out)
    predictor = load(
        model, device=device, threshold=threshold, names=names, overlap=overlap, stuff_area=stuff_area, tta=tta,
        max_pixels=max_pixels, precision=precision,
    )  # fmt: skip
    claim(
        out, MAY_DIFFER, images=images, model=model, out=out, threshold=threshold, names=names, tta=tta,
        overlap=overlap, stuff_area=stuff_area, max_pixels=max_pixels, precision=precision, every=every,
        legend=legend, batch=batch, device=device,
    )  # fmt: skip
    facts = {"model": str(model), "threshold": str(threshold), **installed_versions()}
    return _run(sources, predictor, out, batch, facts, every=every, legend=legend)


def predict_sources(
    sources: Sequence[tuple[str, str, Callable[[], np.ndarray]]],
    predictor: Predictor,
    out: Path,
    batch: int,
    facts: Mapping[str, str],
) -> PredictionRun:
    """Predicts (key, name, reader) after (key, name, reader), in batches, and writes everything. See `predict`."""
    return _run([ImageSource(*source) for source in sources], predictor, out, batch, facts, every=1, legend=True)


def _run(
    sources: Sequence[Source],
    predictor: Predictor,
    out: Path,
    batch: int,
    facts: Mapping[str, str],
    *,
    every: int,
    legend: bool,
) -> PredictionRun:
    journal = Journal(out, {"predictions": predictor.fingerprint()})
    overlays = out / OVERLAYS
    total, before = _counts(sources, journal, overlays, every)
    failures: list[str] = []
    seconds = dict.fromkeys(("network", "reading", "writing"), 0.0)
    fresh = 0
    with (
        stopping() as stop,
        Writer(out, predictor.classes, journal, legend) as writer,
        progress(iter([None]), "predict", total, before) as bar,
    ):
        batches = ahead(read_batches(sources, journal, overlays, every, batch), BATCHES_AHEAD)
        while True:
            with _timed(seconds, "reading"):
                frames = next(batches, None)
            if frames is None:
                break
            if stop.is_set():
                raise KeyboardInterrupt
            failures += frames.failures
            new = [frame.image for frame in frames.frames if frame.done is None]
            with _timed(seconds, "network"):
                predictions = predictor.batch(new) if new else []
            with _timed(seconds, "writing"):
                writer.write(frames, predictions)
            fresh += len(new)
            bar.update(len(frames.frames))
    annotations = _annotations(sources, journal)
    if not annotations:
        raise DataError(f"none of the {len(sources)} images and videos could be read; the first: {failures[0]}")
    write_index(out / "panoptic.json", annotations, predictor.classes.categories(), dict(facts))
    broken, several = _broken_off(sources, journal), _of_several(sources)
    remarks = (*broken, *several)
    report = out / "report.html"
    write_report(report, sources, annotations, predictor, [*failures, *remarks], facts)
    keys = tuple(a.key for a in annotations)
    complete = not failures and not broken
    return PredictionRun(out, keys, fresh, tuple(failures), remarks, complete, seconds, report)


@contextmanager
def _timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[part] += time.perf_counter() - start


def _counts(sources: Sequence[Source], journal: Journal, overlays: Path, every: int) -> tuple[int, int]:
    """Images and frames in all, and how many of them need not be looked at again."""
    total = done = 0
    for source in sources:
        if isinstance(source, ImageSource):
            count, complete = 1, is_done(source, journal)
        else:
            count, complete = -(-_frames(source) // every), is_video_done(source, journal, overlays)
        total += count
        done += count * complete
    return total, done


def _frames(source: VideoSource) -> int:
    """Frames of a video, as it says; none where it cannot be opened, which the run will say."""
    try:
        with VideoStream(source.path) as stream:
            return stream.count()
    except ImageError:
        return 0


def _annotations(sources: Sequence[Source], journal: Journal) -> list[Annotation]:
    """Everything that could be predicted, in the order of the sources."""
    keys: list[str] = []
    for source in sources:
        if isinstance(source, ImageSource):
            keys += [source.key] * is_done(source, journal)
        elif source.key in journal.videos:
            keys += journal.videos[source.key].keys
    return [journal.images[key].annotation for key in keys]


def _broken_off(sources: Sequence[Source], journal: Journal) -> list[str]:
    """Of each video that was read in part, what it lacks."""
    videos = [journal.videos.get(source.key) for source in sources if isinstance(source, VideoSource)]
    return [done.complaint for done in videos if done is not None and done.complaint]


def _of_several(sources: Sequence[Source]) -> list[str]:
    """Of each image file of several pictures, that one was taken."""
    names = [source.name for source in sources if isinstance(source, ImageSource) and holds_several(Path(source.name))]
    return [f"{name} holds several pictures; the first was predicted" for name in names]
