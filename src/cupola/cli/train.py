"""`cupola train`."""

from __future__ import annotations

from cupola.training import TrainingResult, train
from cupola.training.presets import PRESETS

command = train
presets = PRESETS


def show(result: TrainingResult) -> None:
    """Prints what was learnt and where the network is."""
    minutes = result.seconds / 60
    found = f" and {result.self_labels} that the network found itself" if result.self_labels else ""
    objects = f"{result.objects} labelled objects{found}"
    print(f"{result.steps} steps in {minutes:.1f} min on {result.frames} frames with {objects}")
    print("losses at the end: " + ", ".join(f"{name} {value:.3f}" for name, value in result.losses.items()))
    print(f"network: {result.out} ({len(result.things)} thing and {len(result.stuff)} stuff pseudo classes)")
    print(f"next: cupola predict IMAGES --model {result.out} --out PICTURES")
