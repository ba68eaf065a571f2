"""The files that some rows need."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class AblationWeights:
    """Files that rows of the paper's tables need and cupola does not bring. A row without its file is not run, and says
    so.

    Args:
        raft: checkpoint of RAFT, for its row of table 9.
        smurf: checkpoint of SMURF, for its row of table 9; where it is given, the rows of the other tables use it, as
            in the paper, else the classical methods.
        depthg: checkpoint of DepthG, for tables 5 and 10; where it is given, the rows of the other tables use it.
        dino: checkpoint of DINO (ViT-B/8), for MaskCut's row of table 11.
        brightflow: folder of BrightFlow's flow and disparity files (docs/fields-from-files.md), for its row of table 9.
        sea_raft: folder of SEA-RAFT's flow and disparity files, for its row of table 9.
    """

    raft: Path | None = None
    smurf: Path | None = None
    depthg: Path | None = None
    dino: Path | None = None
    brightflow: Path | None = None
    sea_raft: Path | None = None
