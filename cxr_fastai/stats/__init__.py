"""Predictions to figures with intervals: metrics, tests, tables, formats. No torch."""
from .areas import delong
from .audit import audit_table
from .calibration import prior_shift, recalibration, threshold_at
from .compare import compare_arms, verdict
from .draws import resample
from .expected import expected_power, smallest_gain
from .formats import save_table, to_latex, to_markdown, to_text
from .intervals import spread
from .labels import films_to_reread, label_noise
from .power import power_table, Setting, simulated
from .scoring import METRICS, scores, weighted_metrics, wilson
from .shortcuts import against_shortcuts, shortcut_predictions
from .sizes import validation_sizes
from .subgroups import subgroups
from .tables import metrics_table, score_table, table1

__all__ = ["against_shortcuts", "audit_table", "compare_arms", "delong", "expected_power", "films_to_reread",
           "label_noise", "METRICS", "metrics_table", "power_table", "prior_shift", "recalibration", "resample",
           "save_table", "score_table", "scores", "Setting", "shortcut_predictions", "simulated", "smallest_gain",
           "spread", "subgroups", "table1", "threshold_at", "to_latex", "to_markdown", "to_text", "validation_sizes",
           "verdict", "weighted_metrics", "wilson"]
