"""Published weights: where they are, fetched and checked, converted, and found by name. See docs/weights.md."""

from cupola.weights.command import convert_weights, get_weights, list_weights, verify_weights
from cupola.weights.known import KNOWN, KnownFile
from cupola.weights.records import Converted, Fetched, Listed, Verified

__all__ = [
    "KNOWN",
    "Converted",
    "Fetched",
    "KnownFile",
    "Listed",
    "Verified",
    "convert_weights",
    "get_weights",
    "list_weights",
    "verify_weights",
]
