"""A study's page for a browser, its figures and its checklist. No torch."""
from .checklist import checklist
from .figures import plot_calibration, plot_confusion, plot_curves, plot_dose, plot_groups, plot_pr, plot_roc
from .films import plot_gan, plot_memorised, plot_synthetic
from .page import report
from .planned import plan_study, plot_power

__all__ = ["checklist", "plan_study", "plot_calibration", "plot_confusion", "plot_curves", "plot_dose", "plot_gan",
           "plot_groups", "plot_memorised", "plot_power", "plot_pr", "plot_roc", "plot_synthetic", "report"]
