"""Stereo video on disk: one file a layout, all opened by `open_dataset` and read through `StereoDataset`."""

from cupola.data.dataset import FrameRecord, Gap, ImageSource, Margins, StereoDataset, VideoFrame, every_kth
from cupola.data.detect import LAYOUTS, detect_layout, open_dataset

__all__ = [
    "LAYOUTS",
    "FrameRecord",
    "Gap",
    "ImageSource",
    "Margins",
    "StereoDataset",
    "VideoFrame",
    "detect_layout",
    "every_kth",
    "open_dataset",
]
