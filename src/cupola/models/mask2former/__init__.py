"""Mask2Former (Cheng et al., "Masked-attention Mask Transformer for Universal Image Segmentation", 2022) as another
panoptic network: each of many queries gives one class and one mask, of a thing or of stuff.

`Mask2FormerNetwork` is imported only where one is built, since it needs the extra `mask2former` (transformers).
"""
