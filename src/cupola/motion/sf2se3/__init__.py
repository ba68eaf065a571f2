"""SF2SE3 and its ensemble, the paper's way from scene flow to moving objects (spec-stage1 4).

`observation` prepares a clip; `single_run` finds objects one after another (`proposals`, `consensus`, `selection`,
`fitting`), `labelling` draws them at full resolution, `ensemble` and `masks` keep what several runs agree on.
"""

from cupola.motion.sf2se3.segmenter import PublishedSf2se3Segmenter, Sf2se3Segmenter

__all__ = ["PublishedSf2se3Segmenter", "Sf2se3Segmenter"]
