"""Predictions for new patients from a bundle: `python recipes/predict.py --help`."""
from fastcore.meta import delegates
from fastcore.script import call_parse
from cxr_fastai.trained.predict import predict_patients

@call_parse(pos=["images"])
@delegates(predict_patients, but=["bundle", "images"])
def main(
    bundle:str, # a cell's `bundle` folder, or a .safetensors file
    images:str=None, # an image (png, jpeg, tiff, DICOM), a folder of them, or a csv that names them; or --data
    **kwargs,
):
    "Probability, decision at the bundle's threshold, and flags, a row an image; a bad file is a row with its reason."
    try: print(f"The predictions are in {predict_patients(bundle, images, **kwargs)}")
    except (OSError, ValueError) as e: raise SystemExit(str(e)) from None
