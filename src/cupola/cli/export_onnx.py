"""`cupola export onnx`."""

from __future__ import annotations

from cupola.export import ExportedNetwork, export_onnx

command = export_onnx


def show(result: ExportedNetwork) -> None:
    """Says what was written and how far it is from torch."""
    print(f"{result.size / 1e6:.1f} MB: {result.out}")
    found = result.differences
    print(
        f"compared with torch on one image: {found.semantic:.2%} of the pixels in another semantic class, "
        f"{found.objects:.0%} of the objects without a partner, boxes up to {found.box:.4f} px and scores up to "
        f"{found.score:.6f} apart, {found.masks:.3%} of the masks' pixels"
    )
