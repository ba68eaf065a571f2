"""The settings of SF2SE3 and its ensemble, with the published numbers (spec-stage1 8)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Form = Literal["paper", "published"]


@dataclass(frozen=True)
class Sf2se3Settings:
    """How SF2SE3 works; the numbers are the published ones.

    form: "paper" does what the paper means; "published" repeats the published code with its defects (the numbers S..
    in the modules beside this one). runs: how often the random clustering is repeated; a single run gives its labels as
    they are ("vanilla" SF2SE3), more are filtered by their agreement. iterations: attempts at a further object per run.

    downscale: cells per pixel along an axis. clusters, cluster_size: how many are drawn at a time and the most cells of
    one; neighbourhood, rigidity: cells of a cluster lie this near and keep their distances this well [m].
    inlier: consensus above which a cell belongs to an object. min_gain: least share of the cells an object must add;
    max_overlap: largest soft overlap with an accepted object. spatial_sigma: how far an object's pixels lie from its
    cells [tangent of the angle]; window: cells of the object that count, to either side.
    max_rotation: an object that turns more against the background is implausible [rad]; static_sigma: ("paper" only)
    one whose motion differs less from the background's is static [sigma]. min_component: smallest part [px].
    min_consistency: least agreement with the other runs (Eq. 1); min_score: after matrix NMS; min_pixels, min_area:
    smallest object [px, m^2]; min_reliable: least reliable pixels of a frame that is looked at.
    """

    form: Form = "paper"
    runs: int = 8
    iterations: int = 6
    downscale: float = 0.06
    clusters: int = 100
    cluster_size: int = 5
    neighbourhood: float = 5.0
    rigidity: float = 0.03
    inlier: float = 0.0455
    min_gain: float = 0.0015
    max_overlap: float = 0.15
    spatial_sigma: float = 0.05
    window: int = 4
    max_rotation: float = 0.04
    static_sigma: float = 2.0
    min_component: int = 128
    min_consistency: float = 0.8
    min_score: float = 0.6
    min_pixels: int = 64
    min_area: float = 0.65
    min_reliable: int = 512

    @property
    def published(self) -> bool:
        """Whether the published code's behaviour is wanted."""
        return self.form == "published"
