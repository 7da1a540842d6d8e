"""The arms of a study by name: what a model sees, and what is done for the minority class.

A name is one of `ARMS`, and after a plus whatever differs from the defaults: `real-meta+focal`, `real-synth-meta+1/8`,
`real-synth-meta+donor`, `real-meta+film`, `real+duplicate+1/2`."""
from fractions import Fraction
from typing import NamedTuple

__all__ = ["ARMS", "Arm", "FUSION_NAMES", "POLICIES", "RIVALS", "arm_title", "comparisons_of", "expand_arms",
           "parse_arm"]

ARMS = { # the inputs of each arm (section 5.3)
    "real": "image", "meta": "metadata", "real-meta": "both",      # the paper's Real, MLP-meta and Real-Meta
    "real-synth": "image", "real-synth-meta": "both"} # with synthetic minority rows; the last is its Ensemble

RIVALS = { # what is cheaper than synthesis, and the control for mere size
    "class-weights": "a loss that weighs both classes alike (King & Zeng 2001)",
    "oversample"   : "batches that draw both classes equally often",
    "focal"        : "focal loss, gamma 2 (Lin et al. 2017, arXiv:1708.02002)",
    "logit-adjust" : "cross entropy of logits shifted by the log prior (Menon et al. 2021, arXiv:2007.07314)",
    "mixup"        : "mixtures of two radiographs and of their labels (Zhang et al. 2018, arXiv:1710.09412)",
    "augment"      : "twice the rotation, zoom and lighting, and some warp",
    "duplicate"    : "as many real minority rows again as there would be synthetic ones"}

POLICIES = { # where the metadata of a synthetic row comes from
    "matched":    "a real row of its label, for whom a source of like metadata was translated",
    "source":     "the row that was translated",
    "donor":      "any real row of its label",
    "missing":    "nowhere; `add_synthetic` masks real rows of the other label as often",
    "image-only": "nowhere; the row trains the image branch alone"}

FUSION_NAMES = "concat", "logits", "gated", "film", "attention" # how image and metadata merge; `fusion` builds them
KINDS = dict(rival=RIVALS, policy=POLICIES, fusion=FUSION_NAMES) # of words; any other is a dose
TITLES = {"real": "Real", "meta": "Meta", "real-meta": "Real-Meta", "real-synth": "Real-Synth",
          "real-synth-meta": "Ensemble"} # the paper's column heads; Meta is its MLP-meta, Real-Synth is not in it

class Arm(NamedTuple):
    "What an arm's name says; None where it says nothing, and the study's own setting holds."
    base:str               # a key of `ARMS`
    rival:str=None         # a key of `RIVALS`
    policy:str=None        # a key of `POLICIES`
    fusion:str=None        # one of `FUSION_NAMES`
    dose:Fraction=None     # synthetic or duplicated rows, as a share of what would balance the classes

    @property
    def use(self): return ARMS[self.base]
    @property
    def synth(self): return "synth" in self.base
    @property
    def more(self): return self.synth or self.rival == "duplicate" # rows are added to train

def _dose(word):
    "A share of full balance: '1/8' or '1'; None for another word."
    try: dose = Fraction(word)
    except (ValueError, ZeroDivisionError): return
    if 0 < dose <= 1: return dose

def parse_arm(
    name:str, # as in this module's docstring
) -> Arm:
    "What an arm's name says. ValueError for one that says nothing, or twice the same kind of thing."
    base, *words = name.split("+")
    if base not in ARMS: raise ValueError(f"The arm {name!r} is not known; there are {', '.join(ARMS)}.")
    arm = Arm(base)
    for word in words:
        kind = next((k for k, o in KINDS.items() if word in o), "dose")
        value = _dose(word) if kind == "dose" else word
        if value is None:
            raise ValueError(f"The arm {name!r}: {word!r} is no rival ({', '.join(RIVALS)}), metadata policy "
                             f"({', '.join(POLICIES)}), fusion ({', '.join(FUSION_NAMES)}) or dose (1/8; above 0, up "
                             "to 1).")
        if getattr(arm, kind) is not None: raise ValueError(f"The arm {name!r} names two kinds of {kind}.")
        arm = arm._replace(**{kind: value})
    return _sensible(name, arm)

def _sensible(name, arm):
    "The arm, or one sentence on why nobody could train it as its name says."
    for wrong, why in (
        (arm.rival and arm.use == "metadata", "rivals of synthesis are for arms with images"),
        (arm.policy and not arm.synth, "a metadata policy is for synthetic rows, and it has none"),
        (arm.policy and arm.use == "image", "a metadata policy changes nothing where no metadata is read"),
        (arm.fusion and arm.use != "both", "a fusion needs image and metadata"),
        (arm.rival == "mixup" and arm.policy == "image-only",
         "rows mixed with image-only ones lose their partner's metadata"),
        (arm.rival == "duplicate" and arm.synth, "duplicates are the control for synthetic rows; take one of both"),
        (arm.dose is not None and not arm.more, "a dose is of synthetic or duplicated rows, and it has none")):
        if wrong: raise ValueError(f"The arm {name!r} makes no sense: {why}.")
    return arm

def arm_title(
    name:str, # an arm
) -> str:     # for a table's head: 'Real-Meta + focal'
    "The paper's name of an arm, and what it adds."
    base, *words = name.split("+")
    return " + ".join([TITLES[base], *(f"dose {o}" if _dose(o) else o for o in words)])

def expand_arms(
    arms:list,   # names to begin with
    rivals=(),   # keys of `RIVALS`: each joins as two arms, without and with metadata
    doses=(),    # shares of full balance: each joins as an Ensemble of that many synthetic rows; 0 is Real-Meta
    policies=(), # keys of `POLICIES`: each joins as an Ensemble
    fusions=(),  # of `FUSION_NAMES`: each joins as a Real-Meta
) -> list:       # names, each once, in this order
    "The arms of a study from the lists of its flags. ValueError for a name that isn't known."
    names = [*arms, *(f"{base}+{o}" for o in rivals for base in ("real", "real-meta")),
             *("real-meta" if str(o) == "0" else f"real-synth-meta+{o}" for o in doses),
             *(f"real-synth-meta+{o}" for o in policies), *(f"real-meta+{o}" for o in fusions)]
    for o in names: parse_arm(o)
    return list(dict.fromkeys(names))

STEPS = (("real", "real-meta"), ("real", "real-synth"), ("meta", "real-meta"), ("real-meta", "real-synth-meta"))

def comparisons_of(
    arms:list, # names of a study
) -> list: # (before, after), both in `arms`; the paper's own, Real-Meta to Ensemble, first where it is there
    "What a study compares: one source more; an arm with its plain one; synthesis with each rival of the same inputs."
    arms, synthesis = list(arms), {"real": "real-synth", "real-meta": "real-synth-meta"}
    pairs = [o for o in reversed(STEPS) if set(o) <= set(arms)]
    without = {after: before for before, after in synthesis.items()}
    for name in arms:
        arm = parse_arm(name)
        plain = without[arm.base] if arm.synth and arm.dose is not None else arm.base # a dose is compared with none
        if name != plain and plain in arms and "+" in name: pairs.append((plain, name))
        if arm.rival and synthesis[arm.base] in arms: pairs.append((name, synthesis[arm.base]))
    return pairs
