"""A rendered stereo street with exact truth: data to learn from, and to test everything else on."""

from cupola.data.synthetic.rendering import street, street_frame
from cupola.data.synthetic.settings import StreetSettings, StreetTruth
from cupola.data.synthetic.writer import RenderResult, render

__all__ = ["RenderResult", "StreetSettings", "StreetTruth", "render", "street", "street_frame"]
