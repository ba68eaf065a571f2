"""One self-contained HTML file a run: tables, curves, pictures, and which parts, versions and settings made them."""

from cupola.report.page import Figure, Gallery, Page, Table, write_page
from cupola.report.plots import picture_of

__all__ = ["Figure", "Gallery", "Page", "Table", "picture_of", "write_page"]
