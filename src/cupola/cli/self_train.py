"""`cupola self-train`."""

from __future__ import annotations

from cupola.training import SelfTrainingResult, self_train
from cupola.training.self_training_settings import STEPS, paper, published

command = self_train
presets = {
    "paper": lambda: {"settings": paper(), "steps": STEPS},
    "published": lambda: {"settings": published(), "steps": STEPS},
}


def show(result: SelfTrainingResult) -> None:
    """Prints what was learnt and where student and teacher are."""
    minutes = result.seconds / 60
    print(f"{result.steps} steps in {minutes:.1f} min on {result.frames} images without labels")
    print("losses at the end: " + ", ".join(f"{name} {value:.3f}" for name, value in result.losses.items()))
    print(f"student: {result.out}, teacher: {result.teacher}")
    print(f"next: cupola predict IMAGES --model {result.out} --out PICTURES")
