"""Single images in, panoptic maps out: `cupola.load(path)(image)` and `cupola predict`."""

from cupola.devices import pick_device
from cupola.prediction.command import PredictionRun, predict, predict_sources
from cupola.prediction.predictor import ClassSystem, Prediction, Predictor, load

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
