"""Backbones x arms x seeds as resumable cells, and from a folder of films to tables."""
from .bundled import bundle_arm
from .cell import Cell, CellError, read_cell, run_cell
from .grid import Study
from .printed import print_study
from .run import run_study, save_study
from .tune import tuned_plan

__all__ = ["bundle_arm", "Cell", "CellError", "print_study", "read_cell", "run_cell", "run_study", "save_study",
           "Study", "tuned_plan"]
