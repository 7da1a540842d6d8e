"""The paper's Table 1 for any backbones, arms and seeds, and a report of it: `python recipes/table1.py --help`."""
from cxr_fastai.all import *

@call_parse
@delegates(run_study)
def main(
    seeds:str="0,1,2", # of every arm; a verdict needs three
    **kwargs,
):
    "Run a grid of backbones, arms and seeds on one split, or go on with it; print Table 1 and write the report."
    folder = run_study(seeds=seeds, **kwargs)
    if is_first(): print(f"The report is {report(folder)}")
