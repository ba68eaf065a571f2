"""What can go wrong, by kind. Every message is one sentence: what is wrong, where, and what to do.

The command line prints the message of a `CupolaError` and exits with 2; anything else is a defect of ours and
shows its traceback.
"""


class CupolaError(Exception):
    """Any error that a user can mend."""


class ConfigError(CupolaError):
    """A setting is unknown, missing or out of range."""


class DataError(CupolaError):
    """The input directory is not in a known layout, or its frames do not fit together."""


class CalibrationError(DataError):
    """A calibration is missing, unreadable or impossible (zero baseline, negative focal length)."""


class ImageError(DataError):
    """An image or video is missing, damaged, too large or of an unusable kind."""


class StoreError(CupolaError):
    """A label store (or another result directory) is missing, damaged or made with other settings."""


class CheckpointError(CupolaError):
    """A checkpoint is missing, damaged, unsafe or of another architecture."""


class DownloadError(CupolaError):
    """A file could not be fetched: no connection, a refusal, or another content than the known one."""


class TrainingError(CupolaError):
    """Training cannot go on: a loss is not finite, or there is nothing to learn from."""


class DiskError(CupolaError):
    """Writing failed: no space left, or no permission."""
