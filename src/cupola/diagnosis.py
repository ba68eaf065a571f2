"""`cupola doctor`: what this machine has, and what cupola will therefore do."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from cupola.devices import has_bfloat16

PACKAGES = (
    "torch",
    "torchvision",
    "numpy",
    "numba",
    "opencv-contrib-python-headless",
    "scipy",
    "av",
    "lightning-fabric",
    "jsonargparse",
    "safetensors",
    "timm",
)
"""Packages whose versions decide results; they are recorded with every result."""

DISK_COMFORT = 5e9
"""Free bytes below which a warning is due: a night of pseudo labels of full-size frames takes a few gigabytes."""

MEMORY_COMFORT = 4e9
"""Bytes of memory below which training the demo's network may fail (it peaks near 2 GB)."""


@dataclass(frozen=True)
class Finding:
    """One line of the diagnosis. good: None where there is nothing to judge."""

    subject: str
    value: str
    good: bool | None = None
    advice: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """All findings, in the order to read them."""

    findings: tuple[Finding, ...]

    @property
    def healthy(self) -> bool:
        return all(finding.good is not False for finding in self.findings)


def installed_versions() -> dict[str, str]:
    """Versions of cupola, Python and the packages that decide results."""
    from cupola import __version__

    versions = {"cupola": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "missing"
    return versions


def _packages() -> list[Finding]:
    return [
        Finding(
            package,
            found,
            found != "missing",
            "" if found != "missing" else "run `make install`, or `pip install cupola` again",
        )
        for package, found in installed_versions().items()
    ]


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _device() -> Finding:
    try:
        import torch
    except ImportError as error:
        return Finding("device", "torch does not import", False, f"reinstall torch and torchvision ({error})")
    if torch.cuda.is_available():
        return Finding("device", f"GPU: {torch.cuda.get_device_name(0)}", True)
    precision = "bfloat16" if has_bfloat16("cpu") else "float32"
    known = f"CPU, {torch.get_num_threads()} threads for torch, training in {precision}"
    return Finding("device", f"{known}; every command works without a GPU", True)


def _operators() -> Finding:
    """torchvision built for another torch imports, but its operators are missing: find out before a night of work."""
    try:
        import torch
        from torchvision.ops import nms

        nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.ones(1), 0.5)
    except (ImportError, RuntimeError) as error:
        advice = "install the torchvision that belongs to this torch: `pip install --force-reinstall torch torchvision`"
        return Finding("torchvision operators", f"do not work ({error})", False, advice)
    return Finding("torchvision operators", "work", True)


def _opencv() -> Finding:
    import cv2

    missing = [name for name in ("DISOpticalFlow_create", "StereoSGBM_create", "ximgproc") if not hasattr(cv2, name)]
    if missing:
        advice = (
            "another OpenCV hides ours: `pip uninstall opencv-python opencv-python-headless`, then install cupola again"
        )
        return Finding("OpenCV parts", f"missing: {', '.join(missing)}", False, advice)
    return Finding("OpenCV parts", "flow, stereo and superpixels are there", True)


def doctor(*, out: Path = Path()) -> Diagnosis:
    """Explains this machine: what is installed, what is missing, and what cupola will therefore do.

    Args:
        out: a directory whose disk is examined, such as where results will go.
    """
    free = shutil.disk_usage(out if out.exists() else Path()).free
    memory = _memory_bytes()
    findings = [
        Finding("system", f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"),
        Finding("python", sys.executable),
        Finding(
            "memory",
            f"{memory / 1e9:.0f} GB",
            memory >= MEMORY_COMFORT,
            "" if memory >= MEMORY_COMFORT else "train with --settings.batch 2 or smaller images (--scale 0.5)",
        ),
        Finding(
            "free disk",
            f"{free / 1e9:.0f} GB",
            free >= DISK_COMFORT,
            "" if free >= DISK_COMFORT else "free some space before a long run",
        ),
        *_packages(),
        _device(),
        _operators(),
        _opencv(),
        Finding(
            "stage 1 will use", "classical flow and disparity, ego-motion segmentation, offline semantics (no weights)"
        ),
    ]
    return Diagnosis(tuple(findings))
