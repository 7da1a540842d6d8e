"""What every fit shares: precision, epoch tables, checkpoints, trackers, several processes."""
from importlib import import_module

import_module("fastai.vision.all") # all of it, once: it adds `fit_one_cycle`, `lr_find`, `show_batch` to its classes
