"""Train the paper's arms with VGG16 and print its row of Table 1: `python recipes/vgg16.py --help`."""
from cxr_fastai.all import *

@call_parse
@delegates(run_study, but="backbones")
def main(**kwargs):
    "Train the paper's arms with VGG16, print their epoch tables and Table 1's row, write the report."
    folder = run_study("vgg16", **kwargs)
    if is_first(): print(f"The report is {report(folder)}")
