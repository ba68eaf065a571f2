"""`cupola demo`."""

from __future__ import annotations

from cupola.demonstration import DemoResult, demo

command = demo


def show(result: DemoResult) -> None:
    """Prints the table and where the report is."""
    print(result.table())
    print(f"\nreport: {result.report}")
