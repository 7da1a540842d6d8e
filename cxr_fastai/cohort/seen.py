"""Whose films a model was fitted on, so that it is never scored on them: a learner, a bundle and a file of weights
know.

Patients and films are kept as salted hashes of six bytes. They give no id back; but whoever holds an id, or tries all
the short ones, can ask whether it is among them."""
import base64, hashlib, json, warnings
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from ..core.files import few, write_json
from .leaks import LeakError
from .words import fold_ids

__all__ = ["Seen", "check_unseen", "seen_fits", "seen_of"]

BYTES, MOST = 6, 2_000_000 # of a hash; of all of a group's, in base64

def _hashes(kind, values, salt):
    "Salted hashes of `values` (bytes); None gives an empty one, which is nobody's."
    hashed = lambda o: hashlib.blake2b(o, digest_size=BYTES, salt=salt, person=kind).digest()
    return [b"" if o is None else hashed(o) for o in values]

def _patients(rows):
    if "patient_id" not in rows: return [None] * len(rows)
    return [o.encode() if isinstance(o, str) else None for o in fold_ids(rows["patient_id"])]

def _films(hashes, n): return [None] * n if hashes is None else [o.tobytes() for o in np.ascontiguousarray(hashes)]

def check_unseen(
    rows:pd.DataFrame, # with `image`, maybe `split`: those of train may have been seen
    hit:np.ndarray,    # bool, one a row: its patient or film was seen
    whose:str,         # what was trained on them, in words
):
    "LeakError where a row outside train was seen."
    side = rows["split"].astype(str) if "split" in rows else pd.Series("no split", rows.index)
    held = rows[(side != "train").to_numpy() & np.asarray(hit)]
    if not len(held): return
    n = held["patient_id"].nunique() if "patient_id" in held else len(held)
    name = held["image"] if "image" in held else held["file"]
    raise LeakError(f"{whose} was trained on {n:,} patients that aren't in train: "
                    f"{few(name.astype(str) + ' (' + side[held.index] + ')')}; train one on this split. If these are "
                    "others under the same ids, give them ids of their own.")

class Seen:
    "The patients and films of some training tables. `known` is False where some of what was trained on isn't known."
    def __init__(self,
        known:bool=True, # whether these are all
    ): self.known, self.groups = known, {}

    def __bool__(self): return bool(self.groups)

    def add(self,
        rows:pd.DataFrame,      # trained on
        hashes:np.ndarray=None, # of their films; None: not known
    ):
        "Remember `rows`. The salt is made of all that they are, so that one training set gives one bundle."
        patients, films = ({o for o in k if o is not None} for k in (_patients(rows), _films(hashes, len(rows))))
        salt = hashlib.blake2b(b"\0".join(sorted(patients) + sorted(films)), digest_size=16).digest()
        if salt not in self.groups:
            self.groups[salt] = tuple(set(_hashes(k, o, salt)) for k, o in ((b"patient", patients), (b"film", films)))

    def __or__(self, other):
        res = Seen(self.known and other.known)
        res.groups = self.groups | other.groups
        return res

    def hits(self,
        rows:pd.DataFrame,      # any
        hashes:np.ndarray=None, # of their films; None: asked by patient alone
    ) -> np.ndarray:            # bool, one a row
        "Which rows' patient or film was trained on."
        res, asked = np.zeros(len(rows), bool), (_patients(rows), _films(hashes, len(rows)))
        for salt, group in self.groups.items():
            for kind, there, values in zip((b"patient", b"film"), group, asked):
                if there: res |= np.array([o in there for o in _hashes(kind, values, salt)], bool)
        return res

    @property
    def films(self): return any(o for _, o in self.groups.values())

    def card(self) -> dict:
        "As a bundle's card holds it."
        pack = lambda o: base64.b64encode(b"".join(sorted(o))).decode()
        groups = [dict(salt=salt.hex(), patients=pack(a), films=pack(b))
                  for salt, (a, b) in sorted(self.groups.items())]
        return dict(known=self.known, groups=groups)

    @classmethod
    def from_card(cls,
        card:dict, # of `card`; None where a bundle doesn't say
    ):
        "What a card says. ValueError where it isn't what `card` gives."
        if card is None: return cls(known=False)
        if not seen_fits(card): raise ValueError("its list of what was seen in training is damaged")
        res = cls(card["known"])
        for o in card["groups"]:
            res.groups[bytes.fromhex(o["salt"])] = tuple(set(_unpack(o[k])) for k in ("patients", "films"))
        return res

def _unpack(text):
    raw = base64.b64decode(text, validate=True)
    return [raw[i:i+BYTES] for i in range(0, len(raw), BYTES)]

def seen_fits(
    o:object, # of a card
) -> bool:
    "Whether it is what `Seen.card` gives."
    def packed(text):
        if not isinstance(text, str) or len(text) > MOST: return False
        try: return len(base64.b64decode(text, validate=True)) % BYTES == 0
        except ValueError: return False
    def group(g):
        if not isinstance(g, dict) or set(g) != {"salt", "patients", "films"}: return False
        salt = isinstance(g["salt"], str) and len(g["salt"]) == 32 and set(g["salt"]) <= set("0123456789abcdef")
        return salt and packed(g["patients"]) and packed(g["films"])
    return (isinstance(o, dict) and set(o) == {"known", "groups"} and isinstance(o["known"], bool) and
            isinstance(o["groups"], list) and len(o["groups"]) <= 100 and all(map(group, o["groups"])))

def beside(
    file:Path, # of weights, as fastai's `save` writes it
) -> Path:
    "The file that says what such weights have seen."
    return file.with_name(f"{file.stem}.seen.json")

def save_seen(
    seen:Seen, # a learner's
    file:Path, # its weights
):
    "Written beside a file of weights."
    write_json(beside(file), seen.card())

def _said(file):
    "What is said beside a file of weights, or in its header: a card's `seen`; None."
    if beside(file).is_file(): return json.loads(beside(file).read_text())
    if file.suffix != ".safetensors": return
    if (card := file.with_name("bundle.json")).is_file() and file.name == "model.safetensors":
        return json.loads(card.read_text()).get("seen")
    from safetensors import safe_open
    with safe_open(file, "np") as f: return json.loads((f.metadata() or {}).get("cxr_fastai", "{}")).get("seen")

def seen_of(
    file:str|Path, # weights: a bundle's, or what a learner saved, or any other
) -> Seen:
    "What weights were fitted on; a warning where that isn't known. ValueError for a damaged list."
    try: res = Seen.from_card(_said(Path(file)))
    except (ValueError, AttributeError) as e: raise ValueError(f"{file}: {e}.") from None
    if not res.known: _warn_unknown(Path(file).absolute())
    return res

@cache # said once a process, whatever resets Python's own register of warnings
def _warn_unknown(file):
    warnings.warn(f"{file.name}: which patients these weights were fitted on isn't known, or not of all of them; if "
                  "any is in valid or test, the scores flatter.", stacklevel=3)
