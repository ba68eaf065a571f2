"""Reading and writing: images, video, and files that appear complete or not at all."""

from cupola.io.checkpoints import read_checkpoint
from cupola.io.files import atomic_path, content_hash, write_bytes, write_json, write_over, write_text
from cupola.io.images import IMAGE_SUFFIXES, image_size, read_ids, read_rgb, write_ids, write_rgb

__all__ = [
    "IMAGE_SUFFIXES",
    "atomic_path",
    "content_hash",
    "image_size",
    "read_checkpoint",
    "read_ids",
    "read_rgb",
    "write_bytes",
    "write_ids",
    "write_json",
    "write_over",
    "write_rgb",
    "write_text",
]
