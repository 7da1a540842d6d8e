"""Predictions to figures with intervals: metrics, tests, tables, formats. No torch."""
from .areas import delong
from .audit import audit_table
from .calibration import prior_shift, recalibration, threshold_at
from .compare import compare_arms, verdict
from .draws import resample
from .formats import save_table, to_latex, to_markdown, to_text
from .intervals import spread
from .scoring import METRICS, scores, weighted_metrics, wilson
from .subgroups import subgroups
from .tables import metrics_table, score_table, table1

__all__ = ["audit_table", "compare_arms", "delong", "METRICS", "metrics_table", "prior_shift", "recalibration",
           "resample", "save_table", "score_table", "scores", "spread", "subgroups", "table1", "threshold_at",
           "to_latex", "to_markdown", "to_text", "verdict", "weighted_metrics", "wilson"]
