"""Which surface each pixel sees: placing the shapes before the camera, z-buffer, exact motion of what is seen."""
