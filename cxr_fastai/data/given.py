"""What a caller hands over to be predicted, as rows of a table: a table, a row, a dict, a file's name, a picture in
memory, or a list of these."""
import os
from collections.abc import Iterable
from tempfile import TemporaryFile

import numpy as np
import pandas as pd
from PIL import Image

from ..cohort.radiograph import decode_radiograph
from ..cohort.signs import RadiographError
from ..core.files import check_keywords, few

__all__ = ["as_rows", "is_picture", "one_row", "read_picture"]

OF_TEST = "bs num_workers shuffle drop_last device pin_memory timeout persistent_workers".split() # fastai's, and obeyed
OF_DLS = [*OF_TEST, "val_bs", "val_shuffle"]
OF_ROWS = ("image file patient_id follow_up age sex view findings label split synthetic metadata_policy "
           "source_patient_id").split() # what a dict that was a row may have, whatever the model reads of it
HINTS = dict.fromkeys(["batch_tfms", "after_batch"], "give augmentations as tfms=[...]")
HINTS |= dict.fromkeys(["item_tfms", "after_item", "before_batch"],
                       "images are squashed to size=; tfms= change batches")
_SPLITS = "valid_pct", "splitter", "valid_col", "valid_name"
HINTS |= dict.fromkeys(_SPLITS, "split_patients makes the rows' column 'split'")
HINTS_OF_FILES = HINTS | dict.fromkeys(_SPLITS, # of `from_csv` and `from_folder`: fastai's words, and what says it here
    "the split is made by patient, another by another seed=; split_column= takes the table's own")
HINTS_OF_FILES |= dict.fromkeys(["train", "valid"], "split_column='folder' takes the folders train, valid and test")
HINTS_OF_FILES |= dict.fromkeys(["folder", "pref"], "the films are looked for below images=")
HINTS_OF_FILES |= dict(fn_col="its column of images is image=", label_col="its column of labels is label=",
    vocab="the classes are positive= and negative=", y_block="a film has one label of two, by positive= and negative=",
    suff="films are found without their endings", label_delim="words between | or ; are told apart: positive= is one",
    delimiter="commas, semicolons and tabs are told apart", header="a table has a header")

def is_picture(
    o:object, # any
) -> bool:
    "Whether `o` is an image in memory: of PIL, an array of numbers, or a tensor."
    return isinstance(o, Image.Image) or hasattr(o, "ndim") and not isinstance(o, (pd.Series, pd.DataFrame)) and \
           str(o.dtype).removeprefix("torch.").rstrip("0123456789") in ("uint", "int", "float", "bfloat", "bool")

def _as_image(o):
    "A PIL image. RadiographError for an array that doesn't say what white is."
    if isinstance(o, Image.Image): return o.convert("RGB") if o.mode in ("CMYK", "YCbCr", "LAB", "HSV") else o
    x = np.asarray(o.detach().cpu() if hasattr(o, "detach") else o)
    if x.ndim == 3 and x.shape[0] == 1: x = x[0]
    colour = x.dtype == np.uint8 and x.ndim == 3 and x.shape[2] == 3
    if x.dtype not in (np.uint8, np.uint16) or not (x.ndim == 2 or colour):
        raise RadiographError(f"An array of {x.dtype} {list(x.shape)} is no radiograph: give uint8 or uint16 [h, w], 0 "
                              "for black, or uint8 [h, w, 3].")
    return Image.fromarray(np.ascontiguousarray(x))

def read_picture(
    picture:object, # of PIL, or uint8 `[h, w]`, `[1, h, w]`, `[h, w, 3]`, or uint16 `[h, w]`
    size:int,       # side of the square, pixels
    white:int=None, # as in `read_radiograph`
) -> np.ndarray:    # uint8 [size, size]
    "A picture in memory, read as its file would be. RadiographError, which says what it is."
    image = _as_image(picture)
    with TemporaryFile() as f:
        try: image.save(f, "PNG", compress_level=1, exif=image.getexif())
        except (OSError, ValueError) as e:
            raise RadiographError(f"The picture can't be read ({e}); convert it to mode 'L'.") from e
        f.seek(0)
        return decode_radiograph(f, size, white)[0]

def _row(o, known):
    if isinstance(o, (str, os.PathLike)): return dict(image=str(o), file=str(o))
    if is_picture(o): return dict(file=o)
    if isinstance(o, pd.Series): return dict(o)
    if not isinstance(o, dict):
        raise ValueError(f"A {type(o).__name__} is no row: give a dict, a row of a table, an image's file, a PIL image "
                         "or a uint8 array.")
    if known: check_keywords(o, known, "A row")
    return o

def _is_list(o):
    "A Series is a row where its index has names, and a list where it has numbers."
    if isinstance(o, pd.Series): return pd.api.types.is_integer_dtype(o.index)
    return isinstance(o, Iterable) and not isinstance(o, (str, os.PathLike, dict)) and not is_picture(o)

def as_rows(
    rows:object, # DataFrame; one row (Series or dict), file, PIL image or uint8 array; or a list of these
    known=None, # keys that a dict may have; None: any
) -> pd.DataFrame: # with a `file` column, taken from `image` where it is missing
    "Rows for prediction: neither label nor split needed, any metadata may be missing. ValueError for what is none."
    if not isinstance(rows, pd.DataFrame):
        rows = pd.DataFrame([_row(o, known) for o in (rows if _is_list(rows) else [rows])])
        if not len(rows): raise ValueError("There is no row to predict.")
    return rows if "file" in rows or "image" not in rows else rows.assign(file=rows["image"].astype(str))

def one_row(
    row:object,   # of `as_rows`, one of them; None: nothing but `columns`
    columns:dict, # values by name, over the row's
    dls:object,   # `RadiographDataLoaders`, which say what is read
) -> dict:        # of what can be predicted
    "One patient, from a row and values by name. ValueError for several, for names that aren't known, without a film."
    rows = as_rows({} if row is None else row, dls.columns)
    if len(rows) > 1: raise ValueError("predict takes one row; get_preds(dl=dls.test_dl(rows)) takes many.")
    known = (["image", "file"] if dls.radiograph else []) + (dls.metadata.names if dls.metadata else [])
    if unknown := set(columns) - set(known):
        raise ValueError(f"predict doesn't know {few(sorted(unknown))}; it takes {few(known, 20)}.")
    row = dict(rows.iloc[0])
    if "image" in columns: row.pop("file", None) # the row's own image
    row |= columns
    if dls.radiograph and not {"image", "file"} & set(row):
        raise ValueError("predict needs image=FILE: this model reads a radiograph.")
    return row
