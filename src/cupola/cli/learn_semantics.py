"""`cupola learn semantics`."""

from __future__ import annotations

from cupola.semantics.learning import LearnedSemantics, learn_semantics

command = learn_semantics


def show(result: LearnedSemantics) -> None:
    """Prints what was learnt and where it is."""
    minutes = result.seconds / 60
    print(
        f"{result.steps} steps in {minutes:.1f} min on {result.views} views of {result.images} images: "
        f"{result.classes} pseudo classes, the last step kept"
    )
    print("losses at the end: " + ", ".join(f"{name} {value:.3f}" for name, value in result.losses.items()))
    if result.failed:
        key, reason = next(iter(result.failed.items()))
        print(f"{len(result.failed)} images were left out; the first, {key}: {reason}")
    for note in result.notes:
        print(f"note: {note}")
    print(f"next: cupola pseudo-label DATA --semantics depthg --semantics.weights {result.weights} --out LABELS")
