"""What a bundle's card must say, word by word: a file from a stranger is checked by this before anything is built."""
import json, math
from numbers import Real
from pathlib import Path

import timm

from .. import __version__
from ..arms import FUSIONS, parse_arm
from ..cohort.seen import seen_fits
from ..core.files import few
from ..settings import PRECISIONS
from ..stats.operating import HOTTEST
from .lookalike import SIDE

__all__ = ["FORMAT", "MAX_CARD", "MAX_HEADER", "MAX_MEMBERS", "OUT_OF_FOLD", "OWN", "USES", "BundleError", "check_card",
           "members_of", "parse_json"]

FORMAT = 1
USES = dict(image="image", metadata="metadata", fusion="both") # kind of learner -> inputs of its DataLoaders
MAX_CARD, MAX_HEADER = 3_000_000, 4_000_000 # bytes; ResNet152's header has 0.1 million
MAX_SIZE, MAX_BS, MAX_WIDTH = 2048, 65_536, 4096 # pixels a side, rows a batch, units of the MLP's output
MAX_BATCH = 2**31            # pixels of all images of a batch
MAX_WORDS, MAX_DEPTH = 4096, 20 # of a metadata column; tables within tables
MAX_MEMBERS = 100            # of a bundle
OUT_OF_FOLD = "out of fold"  # `chosen`'s side: test films of folds, each by members that weren't trained on it

class BundleError(ValueError): "A bundle that can't be used: one sentence names the file and what doesn't fit."

def parse_json(
    text:str|bytes, # str or bytes
    file:str|Path,  # it was read from, for the error
):
    "json as Python has it. BundleError for anything else; NaN and Infinity aren't json."
    def refuse(o): raise ValueError(f"it holds {o}")
    def table(pairs):
        res = dict(pairs)
        if len(res) < len(pairs): refuse("a name twice") # of which another reader may take the other
        return res
    try: return json.loads(text, parse_constant=refuse, object_pairs_hook=table)
    except (ValueError, RecursionError) as e: raise BundleError(f"{file}: its json can't be read ({e}).") from None

# Each field: a test of the value, and what it should be in words.

def _utf8(o):
    try: return o.isascii() or bool(o.encode())
    except UnicodeEncodeError: return False # half of a surrogate pair can't be written

def _plain(o, depth=MAX_DEPTH):
    "Whether all that is in it can be written again, by any program: no number without end, no nest without bottom."
    if not depth: return False
    if isinstance(o, dict): return all(_utf8(k) and _plain(v, depth - 1) for k, v in o.items())
    if isinstance(o, list): return all(_plain(v, depth - 1) for v in o)
    if isinstance(o, str): return _utf8(o)
    if isinstance(o, float): return math.isfinite(o)
    return o is None or abs(o) < 2**63

def _text(o): return isinstance(o, str) and len(o) < 10_000
def _texts(o): return isinstance(o, list) and all(map(_text, o))
def _number(o, low, high): return isinstance(o, Real) and not isinstance(o, bool) and low <= o <= high
def _whole(o, low, high): return _number(o, low, high) and isinstance(o, int)
def _table(o): return isinstance(o, dict)
def _said(o): return o is None or isinstance(o, Real) or _text(o) # what is only printed
def _figures(o): return _table(o) and all(v is None or isinstance(v, Real) for v in o.values())

RATES = [f"{o}{end}" for o in ("recall", "specificity") for end in ("", "_low", "_high")]
COUNTS = "rows", "positives", "patients"

READ = "epochs", "lr", "seed", "protocol", "epoch_rule" # of a summary's settings, beside the arm

COMMON = dict(
    format=(lambda o: o == FORMAT, f"{FORMAT}; this is cxr_fastai {__version__}"),
    kind=(lambda o: isinstance(o, str) and o in USES, "image, metadata or fusion"),
    classes=(lambda o: _texts(o) and len(o) == 2 and o[0] != o[1], "two words, the negative class first"),
    threshold=(lambda o: _number(o, 0, 1), "a number from 0 to 1"),
    temperature=(lambda o: _number(o, 1/HOTTEST, HOTTEST), f"a number from {1/HOTTEST:g} to {HOTTEST:g}"),
    chosen=(lambda o: _table(o) and _chosen_fits(o), "what save_bundle chose"),
    precision=(lambda o: o in PRECISIONS[1:], "bf16, fp16 or fp32"),
    weights=(_text, "words"), licence=(_text, "words"), sha256=(_text, "words"),
    versions=(lambda o: _table(o) and all(map(_text, o.values())), "a table of words"),
    training=(lambda o: _table(o) and _training_fits(o), "a table of whole numbers and of the last epoch's figures"),
    summary=(lambda o: _table(o) and _summary_fits(o), "a table whose settings and test are those of a study"),
    typical=(lambda o: _table(o) and (not o or _ranges_fit(o)), "what typical_ranges gives"),
    seen=(seen_fits, "what Seen.card gives"),
    bs=(lambda o: _whole(o, 1, MAX_BS), f"1 to {MAX_BS}"),
    size=(lambda o: _whole(o, 1, MAX_SIZE), f"1 to {MAX_SIZE} pixels"))
IMAGE = dict(
    arch=(lambda o: _text(o) and ":" not in o and timm.is_model(o), "the name of a model that this timm has"),
    ps=(lambda o: _number(o, 0, 1), "a number from 0 to 1"),
    normalisation=(lambda o: _gray_fits(o), "a mean, a std above 0 and the range that they give"),
    white=(lambda o: o is None or _whole(o, 8, 16), "8 to 16 bits, or nothing"))
FUSION = dict(
    fusion=(lambda o: isinstance(o, str) and o in FUSIONS, ", ".join(FUSIONS)),
    n_meta=(lambda o: _whole(o, 1, MAX_WIDTH), f"1 to {MAX_WIDTH}"))
METADATA = dict(
    metadata=(lambda o: _table(o) and _columns_fit(o), "cat_names and cont_names with the words or range of each"),
    meta_dropout=(lambda o: _number(o, 0, 1), "a number from 0 to 1"))
SEVERAL = dict(members=(lambda o: isinstance(o, list) and 0 < len(o) <= MAX_MEMBERS, f"a list of 1 to {MAX_MEMBERS}"))
BACKBONES = dict(backbones=(lambda o: _whole(o, 1, MAX_MEMBERS), f"1 to {MAX_MEMBERS}"))
OWN = "weights versions training summary temperature normalisation metadata".split() # of each member; all else is alike
LATER = "seen", "white", "normalisation", "temperature", "chosen" # which bundles of 0.2, or uncalibrated, don't say
FIELDS = dict(image=COMMON | IMAGE, metadata=COMMON | METADATA, fusion=COMMON | IMAGE | FUSION | METADATA)

def _gray_fits(o):
    if not _table(o) or set(o) != {"mean", "std", "range"} or not isinstance(o["range"], list): return False
    return len(o["range"]) == 2 and all(_number(v, -1e9, 1e9) for v in (*o["range"], o["mean"])) and \
        _number(o["std"], 1e-9, 1e9)

def _training_fits(o):
    return _figures(o.get("last_epoch", {})) and all(_whole(v, 0, 2**63) for k, v in o.items() if k != "last_epoch")

def _arm_fits(o):
    try: return _text(o) and bool(parse_arm(o))
    except ValueError: return False

def _summary_fits(o):
    "As far as `model_card` reads it; whoever saves may tell more."
    settings, test, cell = (o.get(k, {}) for k in ("settings", "test", "cell"))
    if not (_table(cell) and all(map(_said, cell.values()))): return False
    if not (_table(settings) and all(_said(settings.get(k)) for k in READ)): return False
    if not all(_arm_fits(its["arm"]) for its in (cell, settings) if "arm" in its): return False
    return _figures(test) and (test.get("recall_low") is None) == (test.get("recall_high") is None)

def _chosen_fits(o):
    "Of `chosen.settle`: the rows, what is promised by them, and by which words."
    if not {*RATES, *COUNTS} <= set(o) <= {*RATES, *COUNTS, "calibrate", "threshold", "wanted", "side"}: return False
    if o.get("side", OUT_OF_FOLD) != OUT_OF_FOLD: return False
    if not all(_whole(o[k], 0, 2**63) for k in COUNTS) or not all(_number(o[k], 0, 1) for k in RATES): return False
    return all(_text(o.get(k, "")) for k in ("calibrate", "threshold")) and _number(o.get("wanted", 1), 0, 1)

def _pattern_fits(o): return isinstance(o, list) and len(o) == SIDE**2 and all(_number(v, -1, 1) for v in o)

def _ranges_fit(o):
    "Of `lookalike.typical_ranges`."
    if set(o) - {"gray"} != {"films", "mean", "patterns", "far", "flat"}: return False # 0.2 doesn't say how gray
    gray = o.get("gray", [0, 0])
    if not (isinstance(gray, list) and len(gray) == 2 and all(_number(v, 0, 255) for v in gray)): return False
    if not (_whole(o["films"], 1, 2**63) and _number(o["far"], 0, 10) and _number(o["flat"], 0, 255)): return False
    if not (isinstance(o["patterns"], list) and 0 < len(o["patterns"]) < 100): return False
    return all(map(_pattern_fits, [o["mean"], *o["patterns"]]))

def _words_fit(o): return _texts(o) and 0 < len(set(o)) == len(o) <= MAX_WORDS

def _range_fits(o):
    return isinstance(o, list) and len(o) == 2 and all(_number(v, -1e300, 1e300) for v in o) and o[0] <= o[1]

def _columns_fit(o):
    if not (_texts(o.get("cat_names")) and _texts(o.get("cont_names")) and _table(o.get("stats"))): return False
    names, stats = o["cat_names"] + o["cont_names"], o["stats"]
    if not names or len(set(names)) < len(names) or set(names) != set(stats): return False
    return all(_words_fit(stats[c]) for c in o["cat_names"]) and all(_range_fits(stats[c]) for c in o["cont_names"])

def members_of(
    card:dict, # of a bundle
) -> list:     # of cards; [] for a single model's
    "A card for each member of a bundle of several."
    return [{k: o for k, o in card.items() if k not in OWN} | own for own in card.get("members", [])]

def _check_fields(told, fields, where):
    for name, (fits, wanted) in fields.items():
        if name in LATER and name not in told: continue
        if name not in told: raise BundleError(f"{where} lacks {name!r}.")
        if not fits(told[name]): raise BundleError(f"{where}: {name} is {_short(told[name])} and should be {wanted}.")
    if more := set(told) - set(fields):
        names = [o if o.isidentifier() else _short(o) for o in sorted(more)]
        raise BundleError(f"{where} has an unknown {few(names)}.")

def _columns(card): return [card["metadata"][o] for o in ("cat_names", "cont_names")] if "metadata" in card else []

def _check_members(card, file):
    "Those of a bundle of several, each of which says its own, and reads what all of them read."
    for i, own in enumerate(card["members"]):
        where = f"{file}: member {i} of the card"
        if not _table(own): raise BundleError(f"{where} is {_short(own)} and should be a table.")
        _check_fields(own, {k: o for k, o in FIELDS[card["kind"]].items() if k in OWN}, where)
        if _columns(own) != _columns(card): raise BundleError(f"{where} reads other columns of metadata than the card.")
    if card.get("backbones", 1) not in (1, len(card["members"])):
        raise BundleError(f"{file}: the card has {card['backbones']} backbones for {len(card['members'])} members.")

def check_card(
    card:dict,     # what json gave
    file:str|Path, # it was read from, for the error
):
    "BundleError for a card that lacks a field, has one too many, or one whose value isn't what it must be."
    if not _table(card): raise BundleError(f"{file}: the card is no table of names and values.")
    if not COMMON["kind"][0](kind := card.get("kind")):
        raise BundleError(f"{file}: kind is {_short(kind)} and should be {COMMON['kind'][1]}.")
    if not _plain(card): raise BundleError(f"{file}: the card is nested too deep, or holds what json can't.")
    more = SEVERAL | (BACKBONES if kind != "metadata" else {}) if "members" in card else {}
    _check_fields(card, FIELDS[kind] | more, f"{file}: the card")
    if "members" in card: _check_members(card, file)
    if card["bs"] * card["size"]**2 > MAX_BATCH:
        raise BundleError(f"{file}: a batch of {card['bs']} at size {card['size']} is more than {MAX_BATCH:,} pixels.")

def _short(o): return f"{o!r:.60}"
