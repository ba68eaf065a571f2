"""`cupola train`."""

from __future__ import annotations

from cupola.training import TrainingResult, train
from cupola.training.presets import PRESETS

command = train
presets = PRESETS


def show(result: TrainingResult) -> None:
    """Prints what was learnt and where the network is."""
    minutes = result.seconds / 60
    print(
        f"{result.steps} steps in {minutes:.1f} min on {result.frames} frames with {result.objects} labelled objects"
        f" and {result.self_labels} that the network found itself"
    )
    print("losses at the end: " + ", ".join(f"{name} {value:.3f}" for name, value in result.losses.items()))
    print(f"network: {result.out} ({len(result.things)} thing and {len(result.stuff)} stuff pseudo classes)")
    print(f"next: cupola predict IMAGES --model {result.out} --out PICTURES")
