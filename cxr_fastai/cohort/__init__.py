"""A table of radiographs to rows, a cohort and its sides, without a leak; films to gray pixels. No torch."""
from .cache import cache_root, RadiographCache
from .duplicates import near_duplicates, perceptual_hash
from .folder import flow_table, load_cohort
from .generated import copies_of_held, external_films, read_films
from .leaks import check_leaks, LeakError
from .phantom import make_phantom
from .radiograph import read_radiograph
from .readers import read_nih, read_table
from .readers_sets import recognise
from .readers_xrv import read_xrv
from .rows import classes, columns_of, positive, read_rows, save_rows, with_columns
from .sampling import paper_cohort, split_given, split_paper, split_patients
from .signs import RadiographError
from .synthetic import add_synthetic, read_manifest

__all__ = ["add_synthetic", "cache_root", "check_leaks", "classes", "columns_of", "copies_of_held",
           "external_films", "flow_table", "LeakError",
           "load_cohort", "make_phantom", "near_duplicates", "paper_cohort", "perceptual_hash", "positive",
           "RadiographCache", "RadiographError", "read_films", "read_manifest", "read_nih", "read_radiograph",
           "read_rows", "read_table", "read_xrv", "recognise", "save_rows", "split_given", "split_paper",
           "split_patients", "with_columns"]
