"""What fine-tuning learns, and from what: annotated images, by the heads alone or by the whole network."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from cupola.finetuning.adapting import class_order
from cupola.finetuning.annotated import Annotated
from cupola.models import PanopticModel, PanopticNetwork
from cupola.progress import progress
from cupola.training.data import CACHE_BYTES, TrainingData
from cupola.training.sampler import Batches, BatchSettings
from cupola.training.targets import Sample, encode_truth

Trainable = Literal["heads", "all"]

FROZEN = "backbone."
"""Trunk and pyramid, which stay as they are where only the heads are trained (spec-network 7)."""


def truth_data(annotated: Annotated, keys: Sequence[str], cache_bytes: int = CACHE_BYTES) -> TrainingData:
    """The annotated images of these keys as training data, kept in memory up to `cache_bytes`; each is read once for
    the fingerprint. Raises what reading raises."""
    things, stuff = class_order(annotated.taxonomy)
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


@dataclass(frozen=True)
class TruthTask:
    """Learning from annotated images as a `cupola.training.loop.Task`. source: what the network was before, for a run
    goes on only from the same."""

    data: TrainingData
    settings: BatchSettings
    trainable: Trainable
    source: str

    @property
    def fingerprint(self) -> str:
        """Of images, truth and the network before."""
        return hashlib.sha256(f"{self.data.fingerprint} {self.source}".encode()).hexdigest()

    def parameters(self, network: PanopticModel) -> Iterable[tuple[str, nn.Parameter]]:
        """Those of the heads, the region proposals among them, or all."""
        named = network.named_parameters()
        return named if self.trainable == "all" else ((n, p) for n, p in named if not n.startswith(FROZEN))

    def train_mode(self, network: PanopticModel) -> None:
        """A frozen trunk keeps the statistics of its norms as well."""
        network.train()
        if self.trainable == "heads":
            assert isinstance(network, PanopticNetwork)
            network.backbone.eval()

    def batches(self) -> AbstractContextManager[Batches]:
        """Random views, image and truth in one transform (N48)."""
        return Batches(self.data, self.settings)

    def before_step(self, step: int, share: float, network: PanopticModel) -> None:
        """Nothing."""

    def after_step(self, step: int, network: PanopticModel) -> None:
        """Nothing."""

    def state(self) -> Mapping[str, Tensor]:
        """Nothing but the weights is needed."""
        return {}

    def restore(self, state: Mapping[str, Tensor], network: PanopticModel) -> None:
        """Nothing."""
