"""Weights that cupola can use, as data: where they are published, under which licence, and their hashes where known.

Addresses were checked against the publishers' own pages: CUPS' and CutLER's README, DINO's README, torchvision's
source. Hashes of torchvision's files begin as in their names; those of the others are unknown to us: the one found at
the first download is recorded and held to afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from cupola.errors import ConfigError

Kind = Literal["network", "backbone", "transformer", "raft", "depthg"]

UNKNOWN_LICENCE = "not stated for the file"


@dataclass(frozen=True)
class KnownFile:
    """A published file of weights.

    name: as cupola calls it; file: as its publisher does; kind: what it holds; what: in words; page: where it is
    described; licence; used_by: what to do with it; url: of the file, None where only a person can fetch it; size: in
    bytes, None = unknown; sha256: None = unknown; figures: what was measured with it, by its publisher or the paper.
    """

    name: str
    file: str
    kind: Kind
    what: str
    page: str
    licence: str
    used_by: str
    url: str | None = None
    size: int | None = None
    sha256: str | None = None
    figures: tuple[str, ...] = ()


_CUPS_PAGE = "https://tudatalib.ulb.tu-darmstadt.de/handle/tudatalib/4532"
_CUPS = "https://tudatalib.ulb.tu-darmstadt.de/bitstream/handle/tudatalib/4532"
_DINO_PAGE = "https://github.com/facebookresearch/dino"
_DINO = "https://dl.fbaipublicfiles.com/dino"
_DINO_LICENCE = "code Apache-2.0; not stated for the file"
_CUTLER_PAGE = "https://github.com/facebookresearch/CutLER"
_CUTLER = "https://dl.fbaipublicfiles.com/cutler/checkpoints"
_CUTLER_LICENCE = "CC BY-NC-SA 4.0"
_TORCHVISION_PAGE = "https://docs.pytorch.org/vision/stable/models.html"
_TORCHVISION = "https://download.pytorch.org/models"
_TORCHVISION_LICENCE = "code BSD-3-Clause; not stated for the file"
_U2SEG_PAGE = "https://github.com/u2seg/U2Seg"


def _dino(name: str, stem: str, what: str) -> KnownFile:
    return KnownFile(
        name, f"{stem}.pth", "transformer", what, _DINO_PAGE, _DINO_LICENCE,
        "--motion maskcut; `cupola learn semantics --settings.backbone.weights FILE`", f"{_DINO}/{stem}/{stem}.pth",
    )  # fmt: skip


KNOWN = (
    KnownFile(
        "cups", "cups.ckpt", "network", "the CUPS network after stage 3, 27 pseudo classes (22 stuff, 5 things)",
        _CUPS_PAGE, f"{UNKNOWN_LICENCE}; code Apache-2.0, trained from a backbone under CC BY-NC-SA 4.0",
        "`cupola predict --model cups`", f"{_CUPS}/cups.ckpt",
        figures=(
            "PQ 27.8, SQ 57.4, RQ 35.2 on Cityscapes val, 19 classes (paper, Table 1)",
            "PQ 25.5 KITTI, 19.9 BDD, 24.4 MUSES, 26.4 Waymo, 67.8 MOTS (paper, Table 2)",
            "accuracy 83.2, mIoU 26.8 on Cityscapes val, 27 classes (paper, Table 3)",
        ),
    ),
    KnownFile(
        "cutler-dino-resnet50", "dino_RN50_pretrain_d2_format.pkl", "backbone",
        "DINO's ResNet-50 in detectron2's names, where CUPS' training begins", _CUPS_PAGE, _CUTLER_LICENCE,
        "`cupola train --network paper --backbone FILE`", f"{_CUPS}/dino_RN50_pretrain_d2_format.pkl",
    ),
    KnownFile(
        "smurf", "raft_smurf.pt", "raft", "SMURF: optical flow by RAFT, trained without labels", _CUPS_PAGE,
        f"{UNKNOWN_LICENCE}; SMURF's code Apache-2.0", "`--correspondence raft`, `--preset paper`",
        f"{_CUPS}/raft_smurf.pt",
    ),
    KnownFile(
        "depthg", "depthg.ckpt", "depthg", "DINO ViT-B/8 with the DepthG head and 27 centres", _CUPS_PAGE,
        UNKNOWN_LICENCE, "`--semantics depthg`, `--preset paper`", f"{_CUPS}/depthg.ckpt",
    ),
    KnownFile(
        "dino-resnet50", "dino_resnet50_pretrain.pth", "backbone", "DINO's ResNet-50", _DINO_PAGE, _DINO_LICENCE,
        "`cupola train --network paper --backbone FILE`; backbone dino_resnet50",
        f"{_DINO}/dino_resnet50_pretrain/dino_resnet50_pretrain.pth",
    ),
    _dino("dino-vitb8", "dino_vitbase8_pretrain", "DINO's ViT-B/8"),
    _dino("dino-vitb16", "dino_vitbase16_pretrain", "DINO's ViT-B/16"),
    _dino("dino-vits8", "dino_deitsmall8_pretrain", "DINO's ViT-S/8"),
    _dino("dino-vits16", "dino_deitsmall16_pretrain", "DINO's ViT-S/16"),
    KnownFile(
        "cutler-cascade", "cutler_cascade_final.pth", "network",
        "CutLER's detector: objects of one class, no stuff", _CUTLER_PAGE, _CUTLER_LICENCE,
        "`cupola predict --model cutler-cascade`", f"{_CUTLER}/cutler_cascade_final.pth",
        figures=("class-agnostic AP50 9.1, AP 5.2 on Waymo (CUPS' paper, Table 4)",),
    ),
    KnownFile(
        "u2seg", "cocotrain_800_0089999.pth", "network",
        "U2Seg, trained on COCO, 800 thing and 27 stuff pseudo classes", _U2SEG_PAGE,
        "code Apache-2.0 with parts under CC BY-NC; not stated for the files", "`cupola weights convert FILE`",
        figures=("PQ 18.4, SQ 55.8, RQ 22.7 on Cityscapes val, 19 classes (CUPS' paper, Table 1)",),
    ),
    KnownFile(
        "raft-large", "raft_large_C_T_SKHT_V2-ff5fadd5.pth", "raft", "RAFT, trained with labels", _TORCHVISION_PAGE,
        _TORCHVISION_LICENCE, "`--correspondence raft`", f"{_TORCHVISION}/raft_large_C_T_SKHT_V2-ff5fadd5.pth",
        sha256="ff5fadd56d26b40647388883af1547351ea17868b765c05b27231e72dd16a322",
    ),
    KnownFile(
        "raft-small", "raft_small_C_T_V2-01064c6d.pth", "raft", "small RAFT, trained with labels", _TORCHVISION_PAGE,
        _TORCHVISION_LICENCE, "`--correspondence raft`", f"{_TORCHVISION}/raft_small_C_T_V2-01064c6d.pth",
        size=4_006_189, sha256="01064c6dba73b0fc9fc8edf772248560a00a3acfd62ac6677e9eeebad9680e27",
    ),
    KnownFile(
        "imagenet-resnet50", "resnet50-0676ba61.pth", "backbone", "torchvision's ResNet-50, trained with labels",
        _TORCHVISION_PAGE, _TORCHVISION_LICENCE, "`cupola train --network paper --backbone FILE`, a supervised start",
        f"{_TORCHVISION}/resnet50-0676ba61.pth",
        size=102_530_333, sha256="0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a",
    ),
)  # fmt: skip
"""Every file that has a name here."""


def find_known(name: str) -> KnownFile | None:
    """The entry of this name or file name, None where there is none."""
    return next((entry for entry in KNOWN if name in (entry.name, entry.file)), None)


def known(name: str) -> KnownFile:
    """`find_known`, or `ConfigError` with the nearest name."""
    entry = find_known(name)
    if entry is None:
        near = get_close_matches(name, [word for e in KNOWN for word in (e.name, e.file)], n=1)
        hint = f"did you mean {near[0]}?" if near else "`cupola weights list` shows all"
        raise ConfigError(f"there are no known weights `{name}`; {hint}")
    return entry
