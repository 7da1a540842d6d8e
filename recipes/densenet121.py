"""Train the paper's arms with DenseNet121 and print its row of Table 1: `python recipes/densenet121.py --help`."""
from cxr_fastai.all import *

@call_parse
@delegates(run_backbone, but="arch")
def main(**kwargs):
    "Train the paper's arms with DenseNet121, print their epoch tables and Table 1's row, save everything in a folder."
    plot_run(run_backbone("densenet121", **kwargs))
