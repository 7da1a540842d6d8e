"""Train the CycleGAN, make synthetic radiographs, judge them: `python recipes/cyclegan.py --help`."""
from cxr_fastai.all import *

@call_parse
@delegates(run_gan)
def main(**kwargs):
    "Train the CycleGAN or go on where it was, translate training radiographs both ways, print how good they are."
    plot_gan(run_gan(**kwargs))
