"""What the paper leaves out of KITTI raw (spec-stage1 1.3): people before a standing camera, and its own test."""

from __future__ import annotations

import re

PERSON_DAY, PERSON_DRIVES = "2011_09_28", range(53, 223)
"""The 80 short drives of the category Person. (The published code keeps the first two of them, 0053 and 0054.)"""

VALIDATION_FRAMES: dict[str, tuple[int, ...]] = {
    "2011_09_26_drive_0005": (10, 59),
    "2011_09_26_drive_0009": (354, 364, 374, 384, 394, 414),
    "2011_09_26_drive_0011": (111, 127, 147, 157, 167),
    "2011_09_26_drive_0013": (10, 20, 40, 70),
    "2011_09_26_drive_0014": (10, 20, 30, 50, 60, 129, 141, 152, 172, 192, 213, 240),
    "2011_09_26_drive_0015": (187, 197, 209, 219, 229, 239, 264, 273, 286),
    "2011_09_26_drive_0017": (10, 30, 40, 50),
    "2011_09_26_drive_0018": (46, 66, 76, 86, 96, 106, 133),
    "2011_09_26_drive_0019": (30, 87, 97),
    "2011_09_26_drive_0022": (634, 644, 654),
    "2011_09_26_drive_0027": (53, 103),
    "2011_09_26_drive_0028": (71, 118, 228, 269, 284, 303, 313, 378),
    "2011_09_26_drive_0029": (16, 123),
    "2011_09_26_drive_0032": (95, 114, 125, 207, 218, 330, 340, 350, 360, 378),
    "2011_09_26_drive_0036": (54, 402),
    "2011_09_26_drive_0046": (52, 62),
    "2011_09_26_drive_0051": (23, 218, 230, 282, 292, 302, 312, 322, 342, 356, 379),
    "2011_09_26_drive_0056": (10, 82, 122, 132, 191, 201, 282),
    "2011_09_26_drive_0057": (125, 140, 176, 299, 319, 339),
    "2011_09_26_drive_0059": (26, 46, 137, 150, 260, 280, 290, 300, 310, 320),
    "2011_09_26_drive_0070": (69, 224),
    "2011_09_26_drive_0084": (84, 179, 238),
    "2011_09_26_drive_0096": (20, 278, 381),
    "2011_09_26_drive_0101": (109, 175, 447, 457, 809),
    "2011_09_26_drive_0104": (15, 35),
    "2011_09_28_drive_0002": (343,),
    "2011_09_29_drive_0004": (36, 79, 94, 105, 162, 258, 285, 308),
    "2011_09_29_drive_0071": (59, 943),
    "2011_10_03_drive_0047": (556,),
}
"""Drive -> frames that belong to the KITTI panoptic validation set: the training images of KITTI 2015 of which the
drive is known (142 of 200)."""

VALIDATION_WINDOW = 5
"""So many frames before and after each of them are left out too (S7: the published code takes one less after it)."""


def is_person_drive(drive: str) -> bool:
    """drive: as 2011_09_28_drive_0053."""
    found = re.fullmatch(rf"{PERSON_DAY}_drive_([0-9]{{4}})", drive)
    return found is not None and int(found[1]) in PERSON_DRIVES


def is_near_validation(drive: str, number: int) -> bool:
    """Whether a frame is one of the validation set or within `VALIDATION_WINDOW` of one."""
    return any(abs(number - frame) <= VALIDATION_WINDOW for frame in VALIDATION_FRAMES.get(drive, ()))
