"""True annotations as training data: unlike pseudo labels they mark everything."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64, UInt16

from cupola.finetuning.adapting import class_order
from cupola.finetuning.annotated import Annotated
from cupola.models import IGNORE, SOME_THING
from cupola.progress import progress
from cupola.training.data import CACHE_BYTES, TrainingData
from cupola.training.targets import FIRST_OBJECT, Sample, require_room
from cupola.types import PanopticMap


def encode_truth(
    truth: PanopticMap, things: tuple[int, ...], stuff: tuple[int, ...]
) -> tuple[UInt16[np.ndarray, "h w"], Int64[np.ndarray, "n"]]:
    """Codes and object classes of true annotations (spec-network 7 [R]): what has no class is `IGNORE`; a thing without
    an instance (a crowd) is `SOME_THING`: it keeps its semantics but gives no object."""
    table = np.full(max((*things, *stuff)) + 2, IGNORE, np.uint16)  # one entry more, so that VOID = -1 finds IGNORE
    table[list(stuff)] = 1 + np.arange(len(stuff), dtype=np.uint16)
    table[list(things)] = SOME_THING
    codes: UInt16[np.ndarray, "h w"] = table[truth.classes]
    is_object = (codes == SOME_THING) & (truth.instances > 0)
    instances, first, inverse = np.unique(truth.instances[is_object], return_index=True, return_inverse=True)
    codes[is_object] = (FIRST_OBJECT + inverse).astype(np.uint16)
    rank = {label: number for number, label in enumerate(things)}
    labels = truth.classes[is_object][first].tolist()
    return codes, np.array([rank[label] for label in labels], np.int64).reshape(len(instances))


def truth_data(annotated: Annotated, keys: Sequence[str], cache_bytes: int = CACHE_BYTES) -> TrainingData:
    """The annotated images of these keys as training data, kept in memory up to `cache_bytes`; each is read once for
    the fingerprint. Raises `TrainingError` for too many classes of stuff, and what reading raises."""
    things, stuff = class_order(annotated.taxonomy)
    require_room(len(stuff))
    digest = hashlib.sha256(repr((annotated.taxonomy.names, things, stuff)).encode())
    cache: dict[str, Sample] = {}
    sizes: list[tuple[int, int]] = []
    objects = used = 0

    def read(key: str) -> Sample:
        image, truth = annotated.read(key)
        return Sample(image, *encode_truth(truth, things, stuff))

    for key in progress(keys, "reading truth"):
        sample = read(key)
        checks = zlib.crc32(sample.image.tobytes()), zlib.crc32(sample.codes.tobytes()), sample.classes.tolist()
        digest.update(f"{key} {checks}".encode())
        sizes.append(sample.size)
        objects += len(sample.classes)
        used += sample.image.nbytes + sample.codes.nbytes
        if used <= cache_bytes:
            cache[key] = sample

    def sample_of(number: int) -> Sample:
        key = keys[number]
        return cache[key] if key in cache else read(key)

    return TrainingData(tuple(keys), tuple(sizes), (), digest.hexdigest(), objects, sample_of)
