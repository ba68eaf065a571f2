"""Objects that move against the scene: ego-motion first, then a residual test (findings-motion 2-6)."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cupola.motion.cells import find_clusters
from cupola.motion.edges import reshaped
from cupola.motion.objects import MovingObject, find_objects
from cupola.motion.proof import proven
from cupola.motion.scene import Scene, observe
from cupola.motion.search import with_large_motions
from cupola.motion.views import LEAST_NORMALISATION, NORMALISATION, make_views
from cupola.types import Correspondence, Instances, StereoClip


@dataclass(frozen=True)
class EgoMotionSegmenter:
    """An instance is a `MotionSegmenter`. max_objects: at most this many objects a frame, the most significant."""

    name: ClassVar[str] = "ego-motion"
    max_objects: int = 64

    def __call__(self, clip: StereoClip, correspondence: Correspondence, seed: int) -> Instances:
        """Masks of the objects that move against the scene, on the first frame.

        The camera's own motion comes first; then every cell of the image is asked whether a translation along the
        ground explains it better. Where the camera's motion cannot be made out there are no objects. Random draws
        depend on (seed, clip key) only.
        """
        rng = np.random.default_rng([seed, zlib.crc32(clip.key.encode())])
        scene = observe(clip, correspondence, rng)
        if scene is None:
            return Instances.empty(*clip.first.size)
        images = make_views(clip, max(LEAST_NORMALISATION, scene.odd(NORMALISATION)))
        scene = with_large_motions(scene, images, rng)
        found = (reshaped(scene, images, one) for one in find_objects(scene, find_clusters(scene)))
        objects = [one for one in found if one is not None and proven(scene, images, one)]
        return _instances(scene, objects[: self.max_objects])


def _instances(scene: Scene, objects: list[MovingObject]) -> Instances:
    """Objects as instances; the score says how far the evidence lies above the least that starts an object."""
    if not objects:
        return Instances.empty(*scene.size)
    significance = np.array([one.significance for one in objects])
    motions = np.tile(np.eye(4), (len(objects), 1, 1))
    for motion, one in zip(motions, objects, strict=True):
        motion[:3] = scene.motion(one.velocity)
    scores = (significance / (significance + 18.0)).astype(np.float32)
    return Instances(np.stack([one.mask for one in objects]), scores, motions)
