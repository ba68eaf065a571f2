"""`cupola render`."""

from __future__ import annotations

from cupola.data.synthetic import RenderResult, render

command = render


def show(result: RenderResult) -> None:
    """Prints what is there now and what to do with it."""
    print(f"{result.out}: {result.sequences} sequences, {result.frames} stereo frames ({result.rendered} rendered now)")
    print(f"next: cupola inspect {result.out}")
