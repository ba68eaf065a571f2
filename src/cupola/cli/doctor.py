"""`cupola doctor`."""

from __future__ import annotations

from cupola.diagnosis import Diagnosis, doctor

command = doctor


def show(result: Diagnosis) -> None:
    """Prints a line a finding and, last, whether all is well."""
    marks = {True: "ok", False: "!!", None: "  "}
    width = max(len(finding.subject) for finding in result.findings)
    for finding in result.findings:
        print(f"{marks[finding.good]}  {finding.subject:{width}}  {finding.value}")
        if finding.advice:
            print(f"    {'':{width}}  -> {finding.advice}")
    print("\nAll is well: try `cupola demo`." if result.healthy else "\nMend what is marked !! first.")
