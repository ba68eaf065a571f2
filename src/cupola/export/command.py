"""`cupola export onnx`: a trained network as one file that runs without torch."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors.torch import save as save_tensors

from cupola import __version__
from cupola.config import plain
from cupola.errors import CheckpointError, ConfigError
from cupola.io import atomic_path
from cupola.models import PanopticNetwork
from cupola.models.settings import TrunkSettings
from cupola.prediction.classes import ClassSystem, class_system
from cupola.weights.finding import find_network

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


def export_onnx(model: str, *, out: Path, threshold: float = 0.5, names: Path | None = None) -> ExportedNetwork:
    """Writes a trained network as an ONNX file: an image in, its panoptic map out, in any runtime of ONNX.

    The file takes images of any size and needs neither cupola nor torch; what goes in and comes out stands in
    docs/onnx.md. Before it appears, it is checked and its result compared with torch's on a test image. Needs the extra
    `onnx`.

    Args:
        model: a network as `cupola.load` takes it: directory, published checkpoint, or name.
        out: the file, NAME.onnx.
        threshold: score from which an object counts, where the caller of the file gives none.
        names: names of the classes: result.json of `cupola evaluate` (its matching), or YAML or JSON {id: name}.

    Returns:
        What was written, and how far its result is from torch's.

    Raises:
        ConfigError: a package is missing, or an argument is out of range.
        CheckpointError: there is no such network, it is damaged or of another architecture, or the file would give
            other results.
        DownloadError: it is not on this machine and cannot be fetched.
        DiskError: the disk is full.
    """
    _check(out, threshold)
    network, card = find_network(model)
    if not isinstance(network, PanopticNetwork) or not isinstance(network.settings.trunk, TrunkSettings):
        raise CheckpointError(
            f"{model} is of an architecture that cannot become an ONNX file; only Cascade Mask R-CNNs on a ResNet can"
        )
    classes = class_system(card, names)
    notes = _notes(network, classes, threshold)
    with atomic_path(out) as temporary:
        differences = _write(temporary, network, classes, threshold, notes)
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
    path: Path, network: PanopticNetwork, classes: ClassSystem, threshold: float, notes: dict[str, str]
) -> Differences:
    """Writes the file, checks its form and compares its result with torch's."""
    import onnx
    import onnx_ir

    from cupola.export.comparison import compare, open_session
    from cupola.export.graph import build_model

    onnx_ir.save(build_model(network, classes.things, classes.stuff, threshold, notes), path)
    try:
        onnx.checker.check_model(path, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise CheckpointError(
            f"torch and onnxscript wrote an ONNX file that is not valid ({error}); update both"
        ) from error
    return compare(network, open_session(path), example_image(), TEST_THRESHOLD, classes.things, classes.stuff)


def example_image() -> np.ndarray:
    """A picture with surfaces and edges of several sizes, uint8 h x w x 3."""
    height, width = TEST_SIZE
    generator = np.random.default_rng(0)
    picture = np.zeros((height, width, 3))
    for cells in (3, 10, 40):
        colours = generator.uniform(0, 85, (cells, cells, 3))
        picture += colours[np.arange(height) * cells // height][:, np.arange(width) * cells // width]
    return picture.astype(np.uint8)


def _notes(network: PanopticNetwork, classes: ClassSystem, threshold: float) -> dict[str, str]:
    """The file's metadata: plain text, or JSON where it is more than a word."""
    weights = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    return {
        "cupola": __version__,
        "class_names": json.dumps({str(c.id): c.name for c in classes.categories()}, ensure_ascii=False),
        "things": json.dumps(classes.things),
        "stuff": json.dumps(classes.stuff),
        "score_threshold": f"{threshold:g}",
        "settings": json.dumps(plain(network.settings)),
        "model_sha256": hashlib.sha256(save_tensors(weights)).hexdigest(),  # that of the model.safetensors of `train`
    }
