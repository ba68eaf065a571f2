"""Single images in, panoptic maps out: `cupola.load(path)(image)` and `cupola predict`."""

from cupola.prediction.command import PredictionRun, predict, predict_sources
from cupola.prediction.predictor import ClassSystem, Prediction, Predictor, load, pick_device

__all__ = [
    "ClassSystem",
    "Prediction",
    "PredictionRun",
    "Predictor",
    "load",
    "pick_device",
    "predict",
    "predict_sources",
]
