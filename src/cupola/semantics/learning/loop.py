"""The training loop of head and probe: plain, top to bottom.

A batch is a function of (seed, step), and so are the channels left out; what a run needs to go on is therefore weights,
optimiser and the step. On a processor it runs on one thread, whose sums do not depend on how many there are.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32

from cupola.errors import StoreError, TrainingError
from cupola.progress import progress
from cupola.runs.metrics import Metrics
from cupola.runs.signals import stopping
from cupola.runs.state import StateFiles
from cupola.semantics.depthg.head import ClusterProbe, DepthgHead
from cupola.semantics.learning.batches import Batches, dropout_generator
from cupola.semantics.learning.learner import Learner, first_centres
from cupola.semantics.learning.settings import SmallRecipe
from cupola.semantics.learning.store import ViewStore

STATE = "learning"
"""Name of the files that a run goes on from (`StateFiles`)."""

PROBE_CODES = 20_000
"""Codes that the probe's first centres are found on, spread evenly over the views."""

WEIGHTS, PROBE = 3, 4
"""Streams of random numbers, beside those of batches: first weights, codes for the probe."""


def new_learner(store: ViewStore, settings: SmallRecipe, seed: int) -> Learner:
    """Head and probe of random weights; torch's own generator is left as it was."""
    centre, deviation = torch.from_numpy(store.centre), torch.from_numpy(store.deviation)
    if not settings.standardise:
        centre, deviation = torch.zeros_like(centre), torch.ones_like(deviation)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(np.random.default_rng([seed, WEIGHTS]).integers(2**31)))
        head = DepthgHead(len(centre), settings.code_channels)
        return Learner(head, ClusterProbe(settings.classes, settings.code_channels), centre, deviation)


def run_learning(learner: Learner, batches: Batches, out: Path, device: torch.device, fingerprint: str) -> float:
    """Trains `learner` in place, going on where `out` has a state. Returns the seconds spent.

    fingerprint: of the data. Raises `TrainingError` where a loss is not finite, `DiskError` where a state cannot be
    written (the one before stays), `StoreError` where the state is not of this run, `KeyboardInterrupt` after SIGINT or
    SIGTERM, with the state saved.
    """
    settings = batches.settings
    learner.to(device).train()
    optimizer = make_optimizer(learner, settings)
    state = StateFiles(out, STATE)
    done, _ = state.load(learner, optimizer) or ({"step": 0, "seconds": 0.0, "data": fingerprint}, {})
    if done.get("data") != fingerprint:
        raise StoreError(f"{out} was begun on other images; choose another --out, or delete it to begin anew")
    step, seconds = int(done["step"]), float(done["seconds"])
    probe_step = int(settings.probe_start * settings.steps)
    metrics = Metrics(out, step)
    bar = progress(iter(()), "learning", total=settings.steps, done=step)
    clock = saved = time.perf_counter()
    with bar, stopping() as stop:
        for batch in batches.ahead(step, settings.steps):
            if step == probe_step:
                begin_probe(learner, batches, device)
            generator = dropout_generator(batches.seed, step)
            losses = learner.losses(batch.to(device), step, settings, generator, probing=step >= probe_step)
            total = torch.stack(list(losses.values())).sum()
            optimizer.zero_grad(set_to_none=True)
            total.backward()  # type: ignore[no-untyped-call]
            values = {name: value.item() for name, value in losses.items()}
            require_finite(values, step + 1)
            optimizer.step()

            step += 1
            now = time.perf_counter()
            seconds += now - clock
            metrics.write(step, loss=sum(values.values()), **values, seconds=now - clock)
            clock = now
            bar.set_postfix_str(" ".join(f"{name} {value:.3f}" for name, value in values.items()), refresh=False)
            bar.update()
            last = step == settings.steps
            if now - saved > settings.checkpoint_seconds or stop.is_set() or last:
                state.save(learner, optimizer, {"step": step, "seconds": seconds, "data": fingerprint})
                saved = time.perf_counter()
            if stop.is_set() and not last:
                raise KeyboardInterrupt
    return seconds


def make_optimizer(learner: Learner, settings: SmallRecipe) -> torch.optim.Adam:
    """Adam, with a rate for the head and one for the probe (spec-stage1 5.5)."""
    return torch.optim.Adam(
        [
            {"params": list(learner.head.parameters()), "lr": settings.learning_rate},
            {"params": list(learner.probe.parameters()), "lr": settings.probe_learning_rate},
        ]
    )


def begin_probe(learner: Learner, batches: Batches, device: torch.device) -> None:
    """Puts the probe's centres where k-means finds clusters of the codes as they are now."""
    codes = some_codes(learner, batches, device)
    rng = np.random.default_rng([batches.seed, PROBE])
    centres = first_centres(codes, batches.settings.classes, rng)
    with torch.no_grad():
        learner.probe.clusters.copy_(torch.from_numpy(centres))


def largest_share(learner: Learner, batches: Batches, device: torch.device) -> float:
    """Share of the cells that the largest pseudo class holds, on some of them."""
    codes = torch.from_numpy(some_codes(learner, batches, device)).to(device)
    with torch.no_grad():
        nearest = learner.probe.cosines(codes.T[None, :, :, None])[0, :, :, 0].argmax(0)
    return float(nearest.bincount().max()) / len(nearest)


def some_codes(learner: Learner, batches: Batches, device: torch.device) -> Float32[np.ndarray, "n d"]:
    """About `PROBE_CODES` codes, of whole cells drawn from views that are spread evenly."""
    store, rng = batches.store, np.random.default_rng([batches.seed, PROBE, 1])
    rows, columns = store.points.shape[2:]
    each = max(1, min(rows * columns, PROBE_CODES // len(store)))
    views = range(0, len(store), max(1, len(store) * each // PROBE_CODES))
    codes = []
    with torch.no_grad():
        for view in views:
            cells = np.sort(rng.choice(rows * columns, each, replace=False))
            row, column = np.divmod(cells, columns)
            features = torch.from_numpy(store.features(view)[row, column].astype(np.float32))
            codes.append(learner.codes(learner.standardised(features[None].to(device)))[0].cpu().numpy())
    return np.concatenate(codes)


def require_finite(values: dict[str, float], step: int) -> None:
    """Raises `TrainingError` naming the first loss that is not finite."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise TrainingError(
                f"the loss {name} is not finite at step {step}; the last saved state is kept: lower "
                "--settings.learning_rate and learn into another --out"
            )


@contextmanager
def one_thread() -> Iterator[None]:
    """torch on one thread, as it was before afterwards: sums over several differ in their last bits with the number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
