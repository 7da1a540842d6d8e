"""A trained classifier in use: a bundle to share, prediction, explanation."""
from .bundle import ensemble_of, load_bundle, save_bundle
from .card import BundleError
from .explain import explain, explain_bundle
from .hub import from_hub, model_card, push_to_hub
from .one import OnePatient
from .onnx import export_onnx
from .predict import predict_patients
from .slider import threshold_slider
from .validate import validate, validate_bundle

__all__ = ["BundleError", "OnePatient", "ensemble_of", "explain", "explain_bundle", "export_onnx", "from_hub",
           "load_bundle", "model_card", "predict_patients", "push_to_hub", "save_bundle", "threshold_slider",
           "validate", "validate_bundle"]
