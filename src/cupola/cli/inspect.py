"""`cupola inspect`."""

from __future__ import annotations

from pathlib import Path

from cupola.inspection import Inspection, SequenceSummary, inspect

command = inspect

MAX_LINES = 20
"""Longer lists of sequences are cut."""
MAX_VERDICT = 50
"""Longer verdicts get a line of their own [characters]."""


def _shorter(source: str, root: Path) -> str:
    return str(Path(source).relative_to(root)) if Path(source).is_relative_to(root) else source


def _line(sequence: SequenceSummary, root: Path, width: int) -> str:
    height, columns = sequence.size
    calibration = sequence.calibration
    return (
        f"  {sequence.name:{width}} {sequence.frames:>7} {sequence.pairs:>6} {len(sequence.gaps):>5}  "
        f"{f'{columns} x {height}':12}{calibration.fx:>8.1f} {calibration.baseline:>9.3f}  "
        f"{_shorter(sequence.calibration_source, root)}"
    )


def show(result: Inspection) -> None:
    """Prints what there is, what was left out, and a line a finding."""
    print(f"{result.root}: layout {result.layout}, {result.frames} frames, {result.pairs} pairs\n")
    shown = result.sequences[:MAX_LINES]
    width = max(8, *(len(sequence.name) for sequence in shown))
    print(f"  {'sequence':{width}}  frames  pairs  gaps  size          fx [px]  base [m]  calibration")
    for sequence in shown:
        print(_line(sequence, result.root, width))
    if len(result.sequences) > len(shown):
        print(f"  ... and {len(result.sequences) - len(shown)} more sequences")
    for note in result.notes:
        print(f"\n  note: {note}")
    if result.measured:
        print(
            f"\nMeasured on {', '.join(result.measured)}{f' at scale {result.scale:g}' if result.scale != 1 else ''}:"
        )
    print()
    marks = {True: "ok", False: "!!", None: "  "}
    width = max(len(finding.subject) for finding in result.findings)
    values = max(len(finding.value) for finding in result.findings)
    for finding in result.findings:
        is_long = len(finding.verdict) > MAX_VERDICT
        line = f"{marks[finding.good]}  {finding.subject:{width}}  {finding.value:{values}}"
        print(f"{line.rstrip()}\n    {'':{width}}  -> {finding.verdict}" if is_long else f"{line}  {finding.verdict}")
    if result.healthy:
        scale = f" --scale {result.scale:g}" if result.scale != 1 else ""
        print(f"\nNext: `cupola pseudo-label {result.root} --out runs/labels{scale}`.")
    else:
        print("\nLook at what is marked !! first.")
