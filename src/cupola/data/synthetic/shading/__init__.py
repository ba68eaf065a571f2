"""What each visible surface looks like: procedural materials, sun, sky light, shadow, haze, sensor noise."""
