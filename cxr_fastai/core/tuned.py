"""What a search of settings (`--tune`) chose for a backbone, as text that stands in a study's settings:
`resnet50:lr=0.0021:epochs=12:ps=0.31:fusion=film:trials=30:search=NAME`, of the trials' files in `out/tune`."""
from ..arms import ARMS, parse_arm, primary_of
from .files import few

__all__ = ["SEARCHED", "check_tune", "choice_text", "choices", "searched_of", "tuned_training"]

SEARCHED = dict(lr=float, epochs=int, ps=float, fusion=str) # settings that are searched
CHOICE = SEARCHED | dict(trials=int, search=str)

def choice_text(
    backbone:str, # timm name
    **chosen,     # of `CHOICE`; `lr` is always there
) -> str:
    "As `choices` reads it, to the bit."
    return ":".join([backbone, *(f"{k}={chosen[k]}" for k in CHOICE if k in chosen)])

def _choice(text):
    backbone, _, rest = str(text).partition(":lr=")
    pairs = [o.partition("=") for o in f"lr={rest}".split(":")]
    try: chosen = {k: CHOICE[k](o) for k, _, o in pairs if k in CHOICE and o}
    except ValueError: chosen = {}
    if backbone and len(chosen) == len(pairs): return backbone, chosen
    raise ValueError(f"tuned={text!r} is not as --tune writes it: NET:lr=.001:epochs=8, with more of "
                     f"{few(CHOICE, 9)}.")

def choices(
    tuned:tuple, # texts, or None
) -> dict:       # backbone -> {name: value}
    "What was chosen. ValueError for a text that isn't of `choice_text`."
    return dict(map(_choice, tuned or ()))

def tuned_training(
    training:object, # a study's `Training`
    backbone:str,    # of it
):
    "How its classifiers are trained: as a search chose, where there was one."
    own = {k: o for k, o in choices(training.tuned).get(backbone, {}).items() if k in SEARCHED}
    return training.replace(tuned=None, **own) if own else training

def check_tune(
    tune:int,        # trials, or None
    training:object, # a study's `Training`
    backbones:list,  # names
    folds:int,       # or None
    protocol:str,    # of the study
):
    "ValueError where there is nothing to search, and where a search would see what is to be test."
    if tune is None and not training.tuned: return
    if others := [o for o in choices(training.tuned) if o not in backbones]:
        raise ValueError(f"tuned is of {few(others)}, which is no backbone of this study: leave it out.")
    for o in backbones: tuned_training(training, o) # a wrong value is said now
    if folds:
        raise ValueError("A search (tune=) is of one split: valid rows of a fold are test rows of another, and it "
                         "would have seen them; leave out the folds, or the search and what it chose.")
    if protocol == "paper":
        raise ValueError("A search (tune=) is of the protocol 'clean': by 'paper', rows that are scored were seen.")
    if tune is not None and tune < 1: raise ValueError(f"tune={tune} trials: there must be 1 or more.")
    if not 0 < training.lr < float("inf") or training.epochs < 1:
        raise ValueError(f"A search begins at lr={training.lr:g} and epochs={training.epochs}, which must be above 0.")

def searched_of(
    arms:list,          # names of a study
    primary:tuple=None, # (before, after); None: `primary_of`
) -> str:               # a key of `ARMS`, without synthetic rows
    """Which arm `--tune` searches: the primary comparison's first that sees films, else the first, as it is without
    synthesis and other words."""
    names = [parse_arm(o) for o in primary or primary_of(arms) or arms]
    base = next((o for o in names if o.use != "metadata"), names[0]).base
    return ARMS[base].real or base
