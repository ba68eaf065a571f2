"""Procedural materials: the colour of a surface point from its own coordinates in metres."""
