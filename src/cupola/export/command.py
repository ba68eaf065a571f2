"""`cupola export onnx`: a trained network as one file that runs without torch."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cupola import __version__
from cupola.config import plain
from cupola.errors import CheckpointError, ConfigError
from cupola.io import atomic_path, content_hash
from cupola.models import PanopticNetwork, VitSettings, load_network
from cupola.models.checkpoint import WEIGHTS

if TYPE_CHECKING:
    from cupola.export.comparison import Differences

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
"""What the extra `onnx` installs."""

TEST_SIZE = (150, 213)
"""Of the image on which the file is compared with torch [px]; no multiple of 32."""

TEST_THRESHOLD = 0.0
"""Score threshold of the comparison: even a network that finds nothing there has objects to compare then."""


@dataclass(frozen=True)
class ExportedNetwork:
    """What `export_onnx` wrote. size [bytes]; differences: from torch's result on a test image."""

    out: Path
    size: int
    differences: Differences


def export_onnx(model: Path, *, out: Path, threshold: float = 0.5) -> ExportedNetwork:
    """Writes a trained network as an ONNX file: an image in, its panoptic map out, in any runtime of ONNX.

    The file takes images of any size and needs neither cupola nor torch; what goes in and comes out stands in
    docs/onnx.md. Before it appears, it is checked and its result compared with torch's on a test image. Needs the extra
    `onnx`.

    Args:
        model: directory with model.safetensors and model.json.
        out: the file, NAME.onnx.
        threshold: score from which an object counts, where the caller of the file gives none.

    Returns:
        What was written, and how far its result is from torch's.

    Raises:
        ConfigError: a package is missing, or an argument is out of range.
        CheckpointError: the directory holds no such network, it is damaged, or the file would give other results.
        DiskError: the disk is full.
    """
    _check(out, threshold)
    network, card = load_network(model)
    if not isinstance(network, PanopticNetwork):
        raise CheckpointError(f"{model} is not a network of the architecture `cascade`; only these become ONNX files")
    if isinstance(network.settings.trunk, VitSettings):
        raise CheckpointError(f"{model} has a vision transformer as trunk; only networks on a ResNet become ONNX files")
    things, stuff = tuple(card["things"]), tuple(card["stuff"])
    notes = _notes(network, card, things, stuff, threshold) | {"model_sha256": content_hash(model / WEIGHTS)}
    with atomic_path(out) as temporary:
        differences = _write(temporary, network, things, stuff, threshold, notes)
        if not differences.within_bounds:
            raise CheckpointError(
                f"the ONNX file of {model} would not give what torch does ({differences}); nothing was written: update "
                "torch, onnxscript and onnxruntime"
            )
        size = temporary.stat().st_size
    return ExportedNetwork(out, size, differences)


def _check(out: Path, threshold: float) -> None:
    """What can be said before any work. Raises `ConfigError`."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"this needs the package {missing[0]}; install it by `pip install 'cupola[onnx]'`")
    if not 0 <= threshold <= 1:
        raise ConfigError(f"--threshold must lie in [0, 1], but is {threshold:g}")
    if out.suffix != ".onnx" or out.is_dir():
        raise ConfigError(f"--out {out} is not the name of an ONNX file; let it end in .onnx")


def _write(
    path: Path,
    network: PanopticNetwork,
    things: tuple[int, ...],
    stuff: tuple[int, ...],
    threshold: float,
    notes: dict[str, str],
) -> Differences:
    """Writes the file, checks its form and compares its result with torch's."""
    import onnx
    import onnx_ir

    from cupola.export.comparison import compare, open_session
    from cupola.export.graph import build_model

    onnx_ir.save(build_model(network, things, stuff, threshold, notes), path)
    try:
        onnx.checker.check_model(path, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise CheckpointError(
            f"torch and onnxscript wrote an ONNX file that is not valid ({error}); update both"
        ) from error
    return compare(network, open_session(path), example_image(), TEST_THRESHOLD, things, stuff)


def example_image() -> np.ndarray:
    """A picture with surfaces and edges of several sizes, uint8 h x w x 3."""
    height, width = TEST_SIZE
    generator = np.random.default_rng(0)
    picture = np.zeros((height, width, 3))
    for cells in (3, 10, 40):
        colours = generator.uniform(0, 85, (cells, cells, 3))
        picture += colours[np.arange(height) * cells // height][:, np.arange(width) * cells // width]
    return picture.astype(np.uint8)


def _notes(
    network: PanopticNetwork, card: dict[str, Any], things: tuple[int, ...], stuff: tuple[int, ...], threshold: float
) -> dict[str, str]:
    """The file's metadata: plain text, or JSON where it is more than a word."""
    named = card.get("class_names", {})
    names = {str(number): named.get(str(number), f"class {number}") for number in sorted({*things, *stuff})}
    return {
        "cupola": __version__,
        "class_names": json.dumps(names, ensure_ascii=False),
        "things": json.dumps(things),
        "stuff": json.dumps(stuff),
        "score_threshold": f"{threshold:g}",
        "settings": json.dumps(plain(network.settings)),
    }
