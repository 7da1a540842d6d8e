"""The three classifiers: a timm backbone, a perceptron on metadata, both fused."""
from .backbone import create_backbone
from .learner import fusion_learner, image_learner, metadata_learner, RadiographLearner
from .metrics import all_metrics, paper_metrics
from .predictions import predict_rows, predictions_of

__all__ = ["all_metrics", "create_backbone", "fusion_learner", "image_learner", "metadata_learner", "paper_metrics",
           "predict_rows", "predictions_of", "RadiographLearner"]
