"""Single images in, panoptic maps out: `cupola.load(path)(image)` and `cupola predict`."""

from cupola.prediction.classes import ClassSystem, class_system
from cupola.prediction.command import PredictionRun, predict, predict_sources
from cupola.prediction.pixels import Picture
from cupola.prediction.predictor import PredictionSettings, Predictor, load
from cupola.prediction.result import Prediction

__all__ = [
    "ClassSystem",
    "Picture",
    "Prediction",
    "PredictionRun",
    "PredictionSettings",
    "Predictor",
    "class_system",
    "load",
    "predict",
    "predict_sources",
]
