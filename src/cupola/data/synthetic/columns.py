"""The table of shapes: one row a primitive, float64, with these columns.

A primitive is a rectangle (its point at u, v in [0, 1] is O + uU + vV) or a ball (its point at p in the unit sphere is
O + pU + qV + rW), in metres in the frame of its actor: x right, y down, z forward. Whatever moves is a rigid actor;
limbs and wheels turn besides around an axis along the actor's x.
"""

from __future__ import annotations

ORIGIN, EDGE_U, EDGE_V, EDGE_W = 0, 3, 6, 9
"""First of three columns each [m]."""
KIND = 12
"""`QUAD` or `BALL`."""
MATERIAL = 13
"""How it is painted: one of `MATERIALS`."""
SHAPE = 14
"""Which part of it is there: one of the shapes below."""
COLOR, COLOR2 = 15, 18
"""First of three columns each: linear red, green, blue in [0, 1]."""
STYLE = 21
"""First of six numbers that its material reads."""
OUTLINE = 27
"""First of four numbers that its shape reads."""
LABEL = 31
"""Cityscapes label id."""
ACTOR = 32
"""Row of the table of poses; 0 stands still."""
PIVOT = 33
"""First of three columns: a point on the axis of swing and spin [m]."""
SWING = 36
"""Amplitude of the swing [rad]."""
SPIN = 37
"""Turns with the actor's roll angle by this factor."""
GRAIN = 38
"""Offset into the noise, so that no two surfaces look alike [texels]."""
TWO_SIDED = 39
"""0: seen from its front only (for parts of closed bodies)."""
COLUMNS = 40

QUAD, BALL = 0, 1

# shapes: what of a rectangle is there
FULL = 0
DISC = 1
TRAPEZOID = 2  # outline: left and right border at v = 0, left and right border at v = 1
CAR_SIDE = 3  # outline: wheel u front, wheel u rear, arch radius [m], unused; style 0..3: bonnet and boot line
LEAVES = 4
LEAFY_BALL = 5
RING = 6
RAILING = 7
CAPSULE = 8
RAGGED_TOP = 9

# materials
PLAIN = 0
ROAD = 1
PAVEMENT = 2
GRASS = 3
FACADE = 4
ROOF = 5
FOLIAGE = 6
BARK = 7
PAINT = 8
CAR_BODY = 9
CAR_CABIN = 10
WINDSCREEN = 11
CAR_FRONT = 12
CAR_REAR = 13
WHEEL = 14
SIGN = 15
CLOTH = 16
HEAD = 17
KERB = 18
HILLS = 19
EMISSIVE = 20
VAN_SIDE = 21

# columns of the table of poses
POSE_X, POSE_Y, POSE_Z, POSE_YAW, POSE_SWING, POSE_ROLL = 0, 1, 2, 3, 4, 5
POSES = 6

# the camera as one vector: position [m], yaw, pitch, roll [rad], fx, fy, cx, cy [px], baseline [m]
CAM_X, CAM_Y, CAM_Z, CAM_YAW, CAM_PITCH, CAM_ROLL, CAM_FX, CAM_FY, CAM_CX, CAM_CY, CAM_BASELINE = range(11)

# light as one vector
SUN, SUN_COLOR, SKY_COLOR, BOUNCE, HAZE_COLOR, HAZE, ZENITH, CLOUDS, EXPOSURE, CLOUD_AT = (
    0,
    3,
    6,
    9,
    12,
    15,
    16,
    19,
    20,
    21,
)
LIGHTS = 23
