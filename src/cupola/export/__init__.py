"""Trained networks as files for other programs: `cupola export onnx`."""

from cupola.export.command import ExportedNetwork, export_onnx

__all__ = ["ExportedNetwork", "export_onnx"]
