"""Light on the ground: which of it the sun reaches, and how much sky it sees."""

from cupola.data.synthetic.shadow.ground import Caster, GroundLight, ground_light

__all__ = ["Caster", "GroundLight", "ground_light"]
