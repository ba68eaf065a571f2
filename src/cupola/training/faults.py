"""What a run that cannot go on leaves behind: a loss that is not finite, with the batch that gave it."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from lightning_fabric import Fabric

from cupola.errors import TrainingError
from cupola.io import write_bytes
from cupola.training.sampler import Batch

NAME = "nonfinite"


def require_finite(
    fabric: Fabric, out: Path, values: Mapping[str, float], step: int, batch: Batch, *, seed: int
) -> None:
    """Raises `TrainingError` naming the first value that is not finite, after writing the batch of the step (from 1
    on) to out/nonfinite.npz; every process of several writes its share, to out/nonfinite-RANK.npz."""
    wrong = [name for name, value in values.items() if not math.isfinite(value) and name != "loss"]
    if not wrong:
        return
    path = out / (f"{NAME}.npz" if fabric.world_size == 1 else f"{NAME}-{fabric.global_rank}.npz")
    write_batch(path, batch, values, step, seed)
    fabric.barrier()
    what = "gradient" if wrong[0] == "gradient" else f"loss {wrong[0]}"
    raise TrainingError(
        f"the {what} is not finite at step {step} (frames {', '.join(batch.keys)}); the batch is in {path} and the "
        "last saved state is kept: lower --settings.optimizer.learning_rate and train into another --out"
    )


def write_batch(path: Path, batch: Batch, values: Mapping[str, float], step: int, seed: int) -> None:
    """Writes a batch and what came of it as a plain npz (`numpy.load`, no pickles), atomically. Raises `DiskError`.

    `report`: JSON of step, seed, place of the first image in the whole batch, keys of the frames, and values (those
    that are not finite as words); for image i `image_i` [3, h, w] float32 and of its target `semantic_i`, `masks_i`,
    `boxes_i`, `classes_i`, `ignore_i`.
    """
    told = {name: value if math.isfinite(value) else str(value) for name, value in values.items()}
    report = {"step": step, "seed": seed, "first": batch.first, "keys": batch.keys, "values": told}
    arrays: dict[str, np.ndarray] = {"report": np.array(json.dumps(report))}
    for number, (image, target) in enumerate(zip(batch.images, batch.targets, strict=True)):
        arrays[f"image_{number}"] = image.detach().float().cpu().numpy()
        for name in ("semantic", "masks", "boxes", "classes", "ignore"):
            arrays[f"{name}_{number}"] = getattr(target, name).cpu().numpy()
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
    write_bytes(path, content.getvalue())
