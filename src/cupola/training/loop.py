"""The training loop of every stage: plain, top to bottom. Devices and precision are Lightning Fabric's business.

What is learnt, and from what, is a `Task`. A batch is a function of (seed, step) and of the task's state, and so are
the network's random choices; what a run needs to go on is therefore weights, optimiser, the task's state and the step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from cupola.errors import ConfigError
from cupola.models import LossPart, PanopticModel
from cupola.models.recompute import buffers_kept
from cupola.progress import progress
from cupola.runs.signals import stopping
from cupola.training.data import require_same_data
from cupola.training.faults import require_finite
from cupola.training.processes import (
    agreed,
    counts_of,
    memory_in_use,
    share_norms,
    share_of_losses,
    summed,
)
from cupola.training.record import Log, Recorder
from cupola.training.sampler import Batch, network_generator
from cupola.training.state import Progress, TrainingState
from cupola.training.watching import Observer

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
    None; saving_share: of the time that may go into saving states; seed: of the network's random choices; accumulate:
    pieces in which a process sends its share of a batch through the network."""

    steps: int
    time_limit: float | None
    saving_share: float
    seed: int
    optimizer: OptimizerSettings
    accumulate: int = 1

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"training needs at least one step, not {self.steps}")
        if self.time_limit is not None and not self.time_limit > 0:
            raise ConfigError(f"the time limit must be positive, but is {self.time_limit} s")

    def share(self, done: Progress) -> float:
        """Share of the run that is over, by steps or by time, whichever is further. A run that would need less than
        nine tenths of its limit goes by steps alone, and so does not depend on the machine's speed."""
        by_time = (done.seconds / self.time_limit - IN_TIME) / (1 - IN_TIME) if self.time_limit else 0.0
        return max(done.step / self.steps, by_time)


@runtime_checkable
class BatchSource(Protocol):
    """Batches by step."""

    def get(self, step: int) -> Batch:
        """The batch of a step: the same whenever it is asked for in the same state of the task."""
        ...


@runtime_checkable
class Task(Protocol):
    """What a stage learns, and from what. `run_training` calls, in this order: `parameters`, `restore` where a run goes
    on, `train_mode`, `batches`, and for each step `before_step`, `get` of its batches, and `after_step`."""

    @property
    def fingerprint(self) -> str:
        """Of all that it learns from: a run goes on only with the same."""
        ...

    def parameters(self, network: PanopticModel) -> Iterable[tuple[str, nn.Parameter]]:
        """Those that are trained, by name; all others stay as they are."""
        ...

    def train_mode(self, network: PanopticModel) -> None:
        """Puts the network into the mode in which it is trained, such as with norms frozen."""
        ...

    def batches(self) -> AbstractContextManager[BatchSource]:
        """Where batches come from, for as long as the context lasts."""
        ...

    def before_step(self, step: int, share: float, network: PanopticModel) -> None:
        """Before the batch of `step` (from 0 on) is asked for; share: of the run that is over, 0..1."""
        ...

    def after_step(self, step: int, network: PanopticModel) -> None:
        """After the weights were changed in `step`, and before the state is saved."""
        ...

    def state(self) -> Mapping[str, Tensor]:
        """What the task needs to go on after a stop, saved with the weights."""
        ...

    def restore(self, state: Mapping[str, Tensor], network: PanopticModel) -> None:
        """Puts back what `state` gave; the network's weights are those of that moment. Raises `StoreError`."""
        ...


def make_optimizer(
    network: nn.Module, parameters: Iterable[tuple[str, nn.Parameter]], settings: OptimizerSettings
) -> torch.optim.AdamW:
    """AdamW over some parameters of a network; those of norm layers do not decay (spec-network 2.8)."""
    plain = {id(p) for module in network.modules() if isinstance(module, NORMS) for p in module.parameters()}
    trained = [parameter for _, parameter in parameters]
    groups = [
        {"params": [p for p in trained if id(p) not in plain], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if id(p) in plain], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, fused=True)


def learning_rate(step: int, share: float, settings: OptimizerSettings) -> float:
    """The rate of a step; share: of the training that is over, 0..1."""
    warm = min(1.0, (step + 1) / settings.warm_up) if settings.warm_up else 1.0
    cosine = settings.final + (1 - settings.final) * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))
    return settings.learning_rate * warm * cosine


def run_training(
    fabric: Fabric,
    network: PanopticModel,
    task: Task,
    out: Path,
    plan: Plan,
    observers: Sequence[Observer] = (),
    log: Log = "none",
) -> Progress:
    """Trains `network` in place, going on where `out` has a state. Returns how far it came.

    observers: watch it after each step; log: where its measures go beside metrics.jsonl. All processes call it; the
    first alone observes and writes. Raises `TrainingError` where a loss is not finite, `DiskError` where
    a state cannot be written (the one before stays), `StoreError` where the state is not of this run,
    `KeyboardInterrupt` after SIGINT or SIGTERM, with the state saved.
    """
    module, optimizer = _set_up(fabric, network, task, plan)
    state = TrainingState(out)
    done = _resumed(state, network, optimizer, task)
    main = fabric.is_global_zero
    recording: Any = Recorder(out, done.step, log) if main else nullcontext()
    bar = progress(iter(()), "training", total=plan.steps, done=done.step, silent=not main)
    saving = _Saving(state, plan.saving_share)
    clock = time.perf_counter()
    with bar, stopping() as stop, recording as recorder, task.batches() as batches:
        while plan.share(done) < 1:
            task.before_step(done.step, plan.share(done), network)
            asked = time.perf_counter()
            batch = batches.get(done.step).to(fabric.device)
            waited = time.perf_counter() - asked
            rate = learning_rate(done.step, plan.share(done), plan.optimizer)
            values = _learn(fabric, module, optimizer, batch, rate, plan, done.step, out)
            task.after_step(done.step, network)

            now = time.perf_counter()
            seconds, stopped = agreed(fabric, now - clock, float(stop.is_set()))
            clock = now
            done = replace(done, step=done.step + 1, seconds=done.seconds + seconds)
            over = plan.share(done) >= 1
            bar.set_postfix_str(f"loss {values['loss']:.3f}, {memory_in_use(fabric.device)}", refresh=False)
            bar.update()
            if main:
                recorder.step(done.step, {**values, "learning_rate": rate, "seconds": seconds, "waiting": waited})
                for observer in observers:
                    observer.after_step(done.step, plan.share(done), network, recorder)
                if saving.is_due() or stopped or over:
                    saving.save(network, optimizer, done, task)
            if stopped and not over:
                raise KeyboardInterrupt
    return done


def _set_up(fabric: Fabric, network: PanopticModel, task: Task, plan: Plan) -> tuple[Any, Any]:
    """The network as the task trains it, and its optimiser, both for these processes and their device."""
    trained = [(name, p) for name, p in task.parameters(network) if p.requires_grad]  # a frozen trunk's do not
    network.requires_grad_(False)
    for _, parameter in trained:
        parameter.requires_grad_()
    task.train_mode(network)
    if fabric.world_size > 1:
        share_norms(network, fabric.device)
    module, optimizer = fabric.setup(network, make_optimizer(network, trained, plan.optimizer))
    module.mark_forward_method("loss_parts" if hasattr(network, "loss_parts") else "losses")
    return module, optimizer


def _resumed(state: TrainingState, network: PanopticModel, optimizer: torch.optim.Optimizer, task: Task) -> Progress:
    """How far the run is, with everything as it was then. Raises `StoreError`."""
    saved = state.load(network, optimizer)
    if saved is None:
        return Progress(0, 0.0, task.fingerprint)
    done, tensors = saved
    require_same_data(state.out, done.fingerprint, task.fingerprint)
    task.restore(tensors, network)
    return done


@dataclass
class _Saving:
    """Saves the state as often as `share` of the time is enough for: the small network's after every step. costs: of
    the last two savings [s], the cheaper of which counts, for now and then one takes longer (`StateFiles`)."""

    state: TrainingState
    share: float
    costs: tuple[float, float] = (0.0, 0.0)
    last: float = field(default_factory=time.perf_counter)

    def is_due(self) -> bool:
        """Whether the time since the last saving pays for another."""
        return (time.perf_counter() - self.last) * self.share >= min(self.costs)

    def save(self, network: PanopticModel, optimizer: torch.optim.Optimizer, done: Progress, task: Task) -> None:
        """Raises `DiskError`; the state before stays."""
        began = time.perf_counter()
        self.state.save(network, optimizer, done, task.state())
        self.last = time.perf_counter()
        self.costs = self.costs[1], self.last - began


def _learn(
    fabric: Fabric, module: Any, optimizer: Any, batch: Batch, rate: float, plan: Plan, step: int, out: Path
) -> dict[str, float]:
    """One step of the optimiser at this learning rate. Gives the losses and the norm of their gradient, of the whole
    batch. Raises `TrainingError`, and leaves the weights alone, where one is not finite."""
    losses = backward(fabric, module, batch, plan, step)
    norm = fabric.clip_gradients(module, optimizer, max_norm=plan.optimizer.clip, error_if_nonfinite=False)
    values = {name: value.item() for name, value in losses.items()} | {"gradient": float(norm or 0.0)}
    require_finite(fabric, out, values, step + 1, batch, seed=plan.seed)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return values


def backward(fabric: Fabric, module: Any, batch: Batch, plan: Plan, step: int) -> dict[str, Tensor]:
    """Adds the gradient of the losses of the whole batch, of which this process has `batch`, and gives these losses and
    their sum as `loss`.

    The batch goes through the network in `plan.accumulate` pieces. What a loss is a mean over is known when all of them
    went through, so with several they go through once more, before, without a gradient.
    """
    pieces = batch.pieces(plan.accumulate)

    def parts_of(piece: Batch) -> dict[str, LossPart]:
        generator = network_generator(plan.seed, step, piece.first)
        with fabric.autocast():  # on one device, Fabric adds it to `forward` alone
            if hasattr(module, "loss_parts"):
                return dict(module.loss_parts(piece.images, piece.targets, generator))
            losses = module.losses(piece.images, piece.targets, generator)  # does not tell: counted by images
        return {name: LossPart(loss, len(piece.images)) for name, loss in losses.items()}

    counts: Tensor | None = None
    if len(pieces) > 1:
        with torch.no_grad(), buffers_kept(module):
            counts = summed(fabric, torch.stack([counts_of(parts_of(piece)) for piece in pieces]).sum(0))
    names: list[str] = []
    shares = []
    for number, piece in enumerate(pieces):
        with fabric.no_backward_sync(module, enabled=number + 1 < len(pieces)):
            parts = parts_of(piece)
            share = share_of_losses(parts, summed(fabric, counts_of(parts)) if counts is None else counts)
            fabric.backward(share.sum() * fabric.world_size)  # gradients are averaged over the processes
        names = list(parts)
        shares.append(share.detach())
    losses = summed(fabric, torch.stack(shares).sum(0))
    return {"loss": losses.sum(), **dict(zip(names, losses, strict=True))}
