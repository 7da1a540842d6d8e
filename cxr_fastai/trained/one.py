"""One patient: what a classifier says of a film and its metadata, and why, as html for a notebook and for a page.

All that is added is in log-odds of the positive class: the film's with no metadata known, what all metadata add to
it, which make the whole, and what each value adds beyond its being missing, which needn't."""
import base64
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import matplotlib as mpl
import numpy as np
from fastcore.basics import patch
from PIL import Image

from ..core.templates import fill_template
from ..data.given import as_rows, one_row
from ..data.metadata import TensorMetadata
from ..models.learner import NO_NUMBER, RadiographLearner
from ..stats.formats import number
from ..stats.scoring import called
from .ask import ask, encoded
from .lookalike import atypical
from .patients import unlike_words
from .plots import enlarged, HEAT, OPAQUE, said_of

__all__ = ["OnePatient", "explained"]

_TEMPLATE = Path(__file__).parent/"templates"/"patient.html.j2"

def _picture(film):
    "Of a film `[s, s]` 0..1, or colours `[s, s, 3]`, an address that holds it all."
    file = BytesIO()
    Image.fromarray(np.rint(np.clip(film, 0, 1) * 255).astype(np.uint8)).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"

def _warmed(film, heat):
    "A film under its heat, in colours."
    strength = heat / (np.abs(heat).max() or 1)
    colours = mpl.colormaps[HEAT]((strength + 1) / 2)[..., :3]
    veil = OPAQUE * np.abs(strength)[..., None]
    return (1 - veil) * film[..., None] + veil * colours

@dataclass(repr=False)
class OnePatient:
    "What `explain_one` found; a notebook shows it as a picture, print it to read it in a sentence."
    classes:tuple      # (negative, positive)
    probability:float  # of the positive class
    threshold:float    # above it is called positive
    log_odds:float     # of the probability, before a temperature's last digits are rounded
    words:dict         # column -> value, or None
    adds:dict          # what -> what it adds to the log-odds
    film:np.ndarray    # `[size, size]`, 0..1, as the model gets it; None without images
    heat:np.ndarray    # as large, for the positive class above 0, against it below; None without images
    flag:str=""        # what is unlike the training rows, as `predict` says it
    name:str=""        # of the film
    limits:list=field(default_factory=lambda: [NOT_MEDICAL]) # sentences below it

    @property
    def decision(self): return self.classes[int(called(self.probability, self.threshold))]

    def __repr__(self):
        adds = ", ".join(f"{k} {number(o, 2, '+')}" for k, o in self.adds.items())
        return (f"probability of {self.classes[1]} {number(self.probability, 3)}: called {self.decision} (above "
                f"{self.threshold:.3g} {self.classes[1]}); log-odds {number(self.log_odds, 2, '+')}: {adds}"
                f"{'; ' * bool(self.flag)}{self.flag}. {' '.join(self.limits)}")

    def _repr_html_(self):
        top = max(map(abs, self.adds.values()), default=0) or 1
        bars = [dict(what=k, said=number(o, 2, "+"), width=round(50*abs(o)/top, 1), up=bool(o > 0))
                for k, o in self.adds.items()]
        films = [] if self.film is None else [
            (_picture(self.film), "the film, as the model gets it"),
            (_picture(_warmed(self.film, self.heat)), f"red speaks for {self.classes[1]}, blue against")]
        return fill_template(
            _TEMPLATE, name=self.name, positive=self.classes[1], decision=self.decision, films=films, bars=bars,
            probability=number(self.probability, 3), percent=round(100*self.probability, 2), flag=self.flag,
            threshold=f"{self.threshold:.3g}", at=round(100*self.threshold, 2), limits=self.limits)

NOT_MEDICAL = "Not a medical device. What a model uses isn't shown to be the illness."

def _adds(said, tfm, words, sees):
    "What -> what it adds to the log-odds."
    own = said["own", "as is", 0].item()
    if not tfm: return {"the film": own}
    unknown = said["metadata", "missing", 0].item()
    whole = {"the film, with no metadata" if sees else "no metadata": unknown, "all metadata": own - unknown}
    return whole | {f"{k} {said_of(o)}": own - said[k, "missing", 0].item() for k, o in words.items() if o is not None}

def explained(
    learn:RadiographLearner, # trained, or of `load_bundle`
    row:dict,                # of one patient, as of `one_row`
) -> OnePatient:
    "What a classifier says of a patient, and why. ValueError where it gives no number; ImportError without captum."
    rows = as_rows(row)
    learn.model.eval()
    tfm, coded = encoded(learn, rows)
    prob, said, heat, film = ask(learn, rows, coded, tfm, [], [])
    if not np.isfinite(prob[0]): raise ValueError(f"No decision: {NO_NUMBER}.")
    words = tfm.decode(TensorMetadata(coded[0])) if tfm else {}
    seen = heat is not None
    return OnePatient(
        classes=tuple(learn.dls.vocab), probability=float(prob[0]), threshold=learn.threshold,
        log_odds=said["own", "as is", 0].item(), words=dict(words), adds=_adds(said, tfm, words, seen),
        film=film.numpy() if seen else None, heat=enlarged(heat, len(film))[0].numpy() if seen else None)

def _unlike(learn, row, film):
    "What `predict` would flag of a patient; nothing is known without a bundle."
    flags = [unlike_words(row, learn.card["metadata"]) if "metadata" in learn.card else ""]
    if film is not None and learn.card:
        flags.append(atypical(np.rint(film * 255).astype(np.uint8), learn.card["typical"]))
    return "; ".join(filter(None, flags))

@patch
def explain_one(self:RadiographLearner,
    row=None,  # as `predict` takes it
    **columns, # image='x.png', age=54, sex='F', view='PA'; what is left out is missing
) -> OnePatient: # which a notebook shows
    """What this classifier says of one patient and why: film, heat over it, probability beside the threshold, and what
    film and metadata add to the log-odds. ValueError as of `predict`; ImportError without captum (extra explain)."""
    row = one_row(row, columns, self.dls)
    found = explained(self, row)
    found.flag, found.name = _unlike(self, row, found.film), str(row["image"]) if "image" in row else ""
    return found
