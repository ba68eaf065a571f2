"""MaskCut: objects of a single image by normalised cuts on the features of its patches (Wang et al. 2023, "Cut and
Learn for Unsupervised Object Detection and Instance Segmentation", section 3.2). It looks at no motion: the paper's
Table 11 compares with it."""

from cupola.motion.maskcut.segmenter import MaskCutSegmenter

__all__ = ["MaskCutSegmenter"]
