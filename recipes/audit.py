"""Which test set is a printed table of metrics of? `python recipes/audit.py --help`."""
from pathlib import Path
from fastcore.script import call_parse
from cxr_fastai.stats.audit import audit_table

DATA = Path(__file__).resolve().parents[1]/"data"

@call_parse(pos=["csv"])
def main(
    csv:str=None,          # table with accuracy and recall by row; without it the paper's Figs 3-5 and its Table 1
    table1:str=None,       # table of recalls by model and arm, audited for the positives that the first table has
    max_n:int=2000,        # the largest test set looked for, in cases
    max_positives:int=212, # the most positives the recalls can be over; the paper's cohort has 212
):
    "Recover the counts behind printed ratios, and name the rows or columns that can't be of one test set."
    if csv is None: csv, table1 = DATA/"paper_figures.csv", table1 or DATA/"paper_table1.csv"
    try:
        found = audit_table(csv, max_n=max_n, max_positives=max_positives)
        print(found)
        if table1: print("", audit_table(table1, positives=found.positives, max_positives=max_positives), sep="\n")
    except (OSError, ValueError) as e: raise SystemExit(str(e)) from None
