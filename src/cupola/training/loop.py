"""The training loop: plain, top to bottom. Devices and precision are Lightning Fabric's business.

A batch is a function of (seed, step) and so are the network's random choices; what a run needs to go on is therefore
weights, optimiser, self-labels and the step.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import nn

from cupola.errors import ConfigError, TrainingError
from cupola.models import PanopticModel
from cupola.progress import progress
from cupola.runs.metrics import Metrics
from cupola.runs.signals import stopping
from cupola.training.data import TrainingData, require_same_data
from cupola.training.sampler import Batches, BatchSettings, network_generator
from cupola.training.self_labels import (
    SelfLabelSettings,
    count_new,
    discover,
    extended_data,
    read_self_labels,
    write_self_labels,
)
from cupola.training.state import Progress, load_state, save_state

NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW and its schedule (findings-demo, "Recipe"; the paper: 1e-4 constant, decay 1e-5, clip 1).

    Attributes:
        learning_rate: its peak.
        weight_decay: of all but norm layers (spec-network 2.8).
        warm_up: steps in which the rate rises from 0.
        final: share of the peak at the end of a half cosine; 1 = constant.
        clip: largest L2 norm of the gradient.
    """

    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    warm_up: int = 60
    final: float = 0.02
    clip: float = 5.0

    def __post_init__(self) -> None:
        for name in ("learning_rate", "clip"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be positive, but is {getattr(self, name)}")


IN_TIME = 0.1
"""Time counts only from this share of the limit on: a slow first step must not shorten a run that is in time."""


@dataclass(frozen=True)
class Plan:
    """A whole run. steps: in all; time_limit: seconds after which it ends early, its schedule shortened to fit, or
    None; saving_share: of the time that may go into saving states."""

    steps: int
    time_limit: float | None
    saving_share: float
    batches: BatchSettings
    optimizer: OptimizerSettings
    self_labels: SelfLabelSettings

    def share(self, done: Progress) -> float:
        """Share of the run that is over, by steps or by time, whichever is further. A run that would need less than
        nine tenths of its limit goes by steps alone, and so does not depend on the machine's speed."""
        by_time = (done.seconds / self.time_limit - IN_TIME) / (1 - IN_TIME) if self.time_limit else 0.0
        return max(done.step / self.steps, by_time)

    def rounds_due(self, done: Progress) -> int:
        """Rounds of self-labels that should have been made by now."""
        return sum(self.share(done) >= at for at in self.self_labels.at)


def make_optimizer(network: nn.Module, settings: OptimizerSettings) -> torch.optim.AdamW:
    """AdamW over all parameters; those of norm layers do not decay (spec-network 2.8)."""
    plain = {id(p) for module in network.modules() if isinstance(module, NORMS) for p in module.parameters()}
    parameters = list(network.parameters())
    groups = [
        {"params": [p for p in parameters if id(p) not in plain], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if id(p) in plain], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, fused=True)


def learning_rate(step: int, share: float, settings: OptimizerSettings) -> float:
    """The rate of a step; share: of the training that is over, 0..1."""
    warm = min(1.0, (step + 1) / settings.warm_up) if settings.warm_up else 1.0
    cosine = settings.final + (1 - settings.final) * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))
    return settings.learning_rate * warm * cosine


def run_training(
    fabric: Fabric, network: PanopticModel, data: TrainingData, out: Path, plan: Plan
) -> tuple[Progress, int]:
    """Trains `network` in place, going on where `out` has a state. Returns the progress and the number of self-labels.

    Raises `TrainingError` where a loss is not finite, `DiskError` where a state cannot be written (the one before
    stays), `StoreError` where the state is not of this run, `KeyboardInterrupt` after SIGINT or SIGTERM, with the state
    saved.
    """
    raw = make_optimizer(network, plan.optimizer)
    module, optimizer = fabric.setup(network, raw)
    module.mark_forward_method("losses")
    done = load_state(out, network, raw) or Progress(0, 0.0, 0, data.fingerprint)
    require_same_data(out, done.fingerprint, data)
    metrics = Metrics(out, done.step)
    added, learnt = _with_self_labels(out, data, done.rounds, plan)

    network.train()
    bar = progress(iter(()), "training", total=plan.steps, done=done.step)
    clock = saved = time.perf_counter()
    cost = 0.0  # of the last saving [s]; the first step is saved to learn it
    with bar, stopping() as stop, Batches(learnt, plan.batches) as batches:
        while plan.share(done) < 1:
            if plan.rounds_due(done) > done.rounds:
                done = replace(done, rounds=plan.rounds_due(done))
                found = discover(network, data, plan.self_labels, fabric.device)
                write_self_labels(out, data, found, done.rounds)
                added, learnt = _with_self_labels(out, data, done.rounds, plan)
                batches.use(learnt)

            batch = batches.get(done.step).to(fabric.device)
            rate = learning_rate(done.step, plan.share(done), plan.optimizer)
            for group in raw.param_groups:
                group["lr"] = rate
            losses = module.losses(batch.images, batch.targets, network_generator(plan.batches.seed, done.step))
            total = torch.stack(list(losses.values())).sum()
            fabric.backward(total)
            norm = fabric.clip_gradients(module, optimizer, max_norm=plan.optimizer.clip, error_if_nonfinite=False)
            values = {name: value.item() for name, value in ({"loss": total, **losses, "gradient": norm}).items()}
            _require_finite(values, done.step + 1, batch.keys)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

            now = time.perf_counter()
            done = replace(done, step=done.step + 1, seconds=done.seconds + now - clock)
            metrics.write(done.step, **values, learning_rate=rate, seconds=now - clock)
            clock = now
            bar.set_postfix_str(f"loss {values['loss']:.3f}", refresh=False)
            bar.update()
            if (now - saved) * plan.saving_share >= cost or stop.is_set() or plan.share(done) >= 1:
                save_state(out, network, raw, done)
                saved = time.perf_counter()
                cost = saved - now
            if stop.is_set() and plan.share(done) < 1:
                raise KeyboardInterrupt
    return done, added


def _with_self_labels(out: Path, data: TrainingData, rounds: int, plan: Plan) -> tuple[int, TrainingData]:
    """Number of self-labels of the last round, and the data with them."""
    if rounds == 0:
        return 0, data
    found = read_self_labels(out, data, rounds)
    return count_new(data, found), extended_data(data, found, plan.batches.copy_paste.min_side)


def _require_finite(values: dict[str, float], step: int, keys: tuple[str, ...]) -> None:
    """Raises `TrainingError` naming the first loss that is not finite."""
    wrong = [name for name, value in values.items() if not math.isfinite(value) and name != "loss"]
    if wrong:
        what = "gradient" if wrong[0] == "gradient" else f"loss {wrong[0]}"
        raise TrainingError(
            f"the {what} is not finite at step {step} (frames {', '.join(keys)}); the last saved state is kept: lower "
            "--settings.optimizer.learning_rate and train into another --out"
        )
