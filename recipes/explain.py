"""Explain what a bundle says of a study's test patients: `python recipes/explain.py --help`."""
from fastcore.meta import delegates
from fastcore.script import call_parse
from cxr_fastai.trained.explain import explain_bundle

@call_parse(pos=["csv"])
@delegates(explain_bundle, but=["bundle", "csv"])
def main(
    bundle:str, # a cell's `bundle` folder, or a .safetensors file
    csv:str=None, # rows of `save_rows`, as a study's rows.csv; those of its test split; or --data
    **kwargs,
):
    "Grad-CAM beside the metadata's contributions: a figure a patient, a summary and two tables, in the folder OUT."
    try: print(explain_bundle(bundle, csv, **kwargs))
    except (ImportError, OSError, ValueError) as e: raise SystemExit(str(e)) from None
