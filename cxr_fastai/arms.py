"""The arms of a study by name: what a model sees, and what is done for the minority class; and what translates films.

A name is one of `ARMS`, and after a plus whatever differs from the defaults: `real-meta+focal`, `real-synth-meta+1/8`,
`real-synth-meta+donor`, `real-meta+film`, `real+duplicate+1/2`, `real-meta+pretrain`, `real-synth+local`. Synthetic
films are of the study's own generator, or after an @ of another, by its name in the study: `real-synth@NAME`.
Each word is one entry of a table below, which says what it is and what it does; whoever adds an entry is done. What
loads torch is imported within a function."""
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

__all__ = ["ARMS", "Arm", "FUSION_NAMES", "FUSIONS", "Fusion", "Inputs", "POLICIES", "PRETRAININGS", "Policy",
           "PARTS", "Part", "Pretraining", "RIVALS", "Rival", "TRANSLATORS", "Translator", "arm_title",
           "comparisons_of", "expand_arms", "is_plain", "parse_arm", "primary_of"]

class Inputs(NamedTuple):
    "What a model sees."
    use:str       # 'image', 'metadata' or 'both'
    title:str     # in tables and legends
    colour:str    # in figures; of Okabe and Ito, for the colour-blind too
    real:str=None # the arm of the same inputs without synthetic rows; None for one that has none

ARMS = { # section 5.3; the titles are the paper's column heads, but Meta, its MLP-meta, and Real-Synth, not in it
    "real": Inputs("image", "Real", "#0072B2"),
    "meta": Inputs("metadata", "Meta", "#7F7F7F"),
    "real-meta": Inputs("both", "Real-Meta", "#E69F00"),
    "real-synth": Inputs("image", "Real-Synth", "#56B4E9", real="real"),
    "real-synth-meta": Inputs("both", "Ensemble", "#D55E00", real="real-meta")}

class Rival(NamedTuple):
    "What is cheaper than synthesis, or the control for mere size: what it changes, each None where that stays."
    words:str               # what it is
    dls:Callable=None       # () -> keyword arguments of `RadiographDataLoaders.from_df`
    loss:Callable=None      # share of positives among the training rows -> a loss of fastai's
    callback:Callable=None  # () -> a Callback
    rows:Callable=None      # (rows, n, seed) -> rows, and `n` more in train
    balanced:bool=False     # training weighs both classes alike, whatever their shares
    mixes:bool=False        # rows with one another, so that none may lack its metadata

def _classes_alike(prior):
    from fastai.losses import CrossEntropyLossFlat
    from fastai.torch_core import tensor
    return CrossEntropyLossFlat(weight=tensor([.5/(1 - prior), .5/prior])) # mean 1 over the training rows

def _focal(prior):
    from fastai.losses import FocalLossFlat
    return FocalLossFlat(gamma=2.)

def _adjusted(prior):
    from .models.rivals import LogitAdjusted
    return LogitAdjusted(prior)

def _mixup():
    from .models.rivals import RowMixUp
    return RowMixUp(.4)

def _stronger():
    from fastai.vision.augment import aug_transforms
    return dict(tfms=aug_transforms(do_flip=False, max_rotate=14., max_zoom=1.2, max_lighting=.2, max_warp=.1,
                                    pad_mode="zeros"))

def _again(rows, n, seed):
    from .models.rivals import duplicated
    return duplicated(rows, n, seed)

RIVALS = {
    "class-weights": Rival("a loss that weighs both classes alike (King & Zeng 2001)", loss=_classes_alike,
                           balanced=True),
    "oversample": Rival("batches that draw both classes equally often", dls=lambda: dict(weighted=True), balanced=True),
    "focal": Rival("focal loss, gamma 2 (Lin et al. 2017, arXiv:1708.02002)", loss=_focal),
    "logit-adjust": Rival("cross entropy of logits shifted by the log prior (Menon et al. 2021, arXiv:2007.07314)",
                          loss=_adjusted, balanced=True),
    "mixup": Rival("mixtures of two radiographs and of their labels (Zhang et al. 2018, arXiv:1710.09412)",
                   callback=_mixup, mixes=True),
    "augment": Rival("twice the rotation, zoom and lighting, and some warp", dls=_stronger),
    "duplicate": Rival("as many real minority rows again as there would be synthetic ones", rows=_again)}

class Policy(NamedTuple):
    "Where the metadata of a synthetic row comes from. Its donor is a real row of its label, drawn for it."
    words:str             # what it is
    giver:str=None        # 'source', the row that was translated, 'donor', or None: nobody
    matched:bool=False    # the source is one of like metadata to the donor's, not any
    masks:bool=False      # `add_synthetic` masks real rows of the other label, until metadata is missing as often
    image_only:bool=False # the row trains the image branch alone

POLICIES = {
    "matched": Policy("a real row of its label, for whom a source of like metadata was translated", giver="donor",
                      matched=True),
    "source": Policy("the row that was translated", giver="source"),
    "donor": Policy("any real row of its label", giver="donor"),
    "missing": Policy("nowhere; `add_synthetic` masks real rows of the other label as often", masks=True),
    "image-only": Policy("nowhere; the row trains the image branch alone", image_only=True)}

class Fusion(NamedTuple):
    "How image and metadata merge."
    words:str     # what it is
    head:Callable # (width, n_meta, n_out, ps) -> a Module of feature map `[n, width, h, w]` and metadata `[n, n_meta]`

    def __call__(self, width, n_meta, n_out, ps):
        "The head that makes logits `[n, n_out]` of both, `ps` its dropout."
        return self.head(width, n_meta, n_out, ps)

def _head(name):
    "Of the class `name` of `models.fusion`."
    def make(*sizes):
        from .models import fusion
        return getattr(fusion, name)(*sizes)
    return make

FUSIONS = {
    "concat": Fusion("side by side, then one linear layer", _head("ConcatFusion")),
    "logits": Fusion("the mean of their own logits", _head("LogitFusion")),
    "gated": Fusion("mixed unit by unit by a gate (Arevalo et al. 2017, arXiv:1702.01992)", _head("GatedFusion")),
    "film": Fusion("metadata scales and shifts features (Perez et al. 2018, arXiv:1709.07871)", _head("FilmFusion")),
    "attention": Fusion("metadata asks the feature map where to look", _head("AttentionFusion"))}

FUSION_NAMES = FUSIONS # its name of before

class Pretraining(NamedTuple):
    "What a model is fitted on before the real rows, by the same schedule: films of both classes, as many of each."
    words:str        # what it is
    again:bool=False # they are real training rows, the control for mere steps

PRETRAININGS = {
    "pretrain": Pretraining("fitted on synthetic films of both classes, then on the real ones as ever "
                            "(arXiv:2508.16783)"),
    "pretrain-duplicate": Pretraining("the same with real training films in their place: the control for as many steps",
                                      again=True)}

class Part(NamedTuple):
    "How much of its translator's change a synthetic film has."
    words:str      # what it is
    films:Callable # (sources, translations) -> films, uint8 `[n, h, w]` all

def _local(source, film):
    from .cohort.parts import fine_change
    return fine_change(source, film)

PARTS = {"local": Part("films with their source's low frequencies, to which only the fine part of the change is added, "
                       "so that its tone (exposure) and its texture are told apart", _local)}

DIRECTIONS = "a2b", "b2a" # A: the majority, B: the minority

class Translator(NamedTuple):
    "What makes films of one class of the other's; presets of `GANS` say how it is trained."
    title:str              # in tables and sentences
    words:str              # what it is
    learner:Callable       # () -> the function that makes its learner of `UnpairedDataLoaders`
    passes:Callable        # settings -> how often a step runs a generator, and a discriminator, in all
    told:Callable          # settings -> what its loss weighs, in words
    ways:tuple=DIRECTIONS  # each has a generator and a discriminator of its own

    def check(self,
        direction:str,                # 'a2b' or 'b2a'
        negative:str="the majority",  # name of A's class
        positive:str="the minority",  # of B's
    ):
        "ValueError for a direction that isn't known, or isn't one of its ways."
        if direction not in DIRECTIONS:
            raise ValueError(f"direction={direction!r} is not known; 'a2b' makes {positive} of {negative}, "
                             "'b2a' the reverse.")
        if direction not in self.ways:
            raise ValueError(f"direction={direction!r}: a {self.title} translates {' and '.join(self.ways)} alone, "
                             f"to {positive}; gan='fast', a {TRANSLATORS['cyclegan'].title}, has both directions.")

def _cyclegan():
    from .gan.cyclegan import cyclegan_learner
    return cyclegan_learner

def _cut():
    from .gan.cut import cut_learner
    return cut_learner

def _each_way(lam): return " and ".join(f"{o:g}" for o in lam) if isinstance(lam, (tuple, list)) else f"{lam:g}"

TRANSLATORS = {
    "cyclegan": Translator(
        "CycleGAN", "two generators that undo each other (Zhu et al. 2017, arXiv:1703.10593)", _cyclegan,
        passes=lambda own: (4 if own.get("identity") == 0 else 6, 6), # two translations, cycles, identities
        told=lambda own: f"weight of the cycle loss {_each_way(own['lam'])}, of the identity loss {own['identity']:g} "
                         "times that"),
    "cut": Translator(
        "CUT", "one generator whose patches stay those of its source (Park et al. 2020, arXiv:2007.15651)", _cut,
        passes=lambda own: (4 if own.get("identity", True) else 2, 3), # translations, and what is looked at of them
        told=lambda own: f"weight of the contrast of patches {own['lam']:g}"
                         + (", half of it between the minority's films and their own translations" * own["identity"]),
        ways=("a2b",))}

KINDS = dict(rival=RIVALS, policy=POLICIES, fusion=FUSIONS, pretraining=PRETRAININGS, part=PARTS) # else it is a dose

class Arm(NamedTuple):
    "What an arm's name says; None where it says nothing, and the study's own setting holds."
    base:str               # a key of `ARMS`
    rival:str=None         # a key of `RIVALS`
    policy:str=None        # a key of `POLICIES`
    fusion:str=None        # a key of `FUSIONS`
    dose:Fraction=None     # synthetic or duplicated rows, as a share of what would balance the classes
    pretraining:str=None   # a key of `PRETRAININGS`
    part:str=None          # a key of `PARTS`
    films:str=None         # the generator of its synthetic films, as its study names it; None: the study's own

    @property
    def use(self): return ARMS[self.base].use
    @property
    def synth(self): return ARMS[self.base].real is not None # rows join the real ones
    @property
    def reads_synth(self):
        "Whether synthetic films are trained on: among the real ones, or before."
        return self.synth or self.pretraining is not None and not PRETRAININGS[self.pretraining].again
    @property
    def own(self): return self.reads_synth and self.films is None # by the study's generator
    @property
    def again(self):
        "`Rival.rows` of its rival; None where real rows are as they are."
        return RIVALS[self.rival].rows if self.rival else None
    @property
    def more(self): return self.synth or self.again is not None or self.pretraining is not None # than the real rows

def _dose(word):
    "A share of full balance: '1/8' or '1'; None for another word."
    try: dose = Fraction(word)
    except (ValueError, ZeroDivisionError): return
    if 0 < dose <= 1: return dose

def _near(word, words):
    from .core.words import nearest_word
    near = nearest_word(word, words)
    return near and f" ({near})"

def parse_arm(
    name:str, # as in this module's docstring
) -> Arm:
    "What an arm's name says. ValueError for one that says nothing, or twice the same kind of thing."
    from .core.generators import whose_films
    from .core.sense import sensible
    (base, *words), films = whose_films(name, name.split("+"))
    if base not in ARMS:
        raise ValueError(f"The arm {name!r} is not known; there are {', '.join(ARMS)}{_near(base, ARMS)}.")
    arm = Arm(base, films=films)
    for word in words:
        kind = next((k for k, entries in KINDS.items() if word in entries), "dose")
        value = _dose(word) if kind == "dose" else word
        if value is None:
            known = ", ".join(f"{k} ({', '.join(entries)})" for k, entries in KINDS.items())
            raise ValueError(f"The arm {name!r}: {word!r} is no {known} or dose (1/8; above 0, up to 1)"
                             f"{_near(word, [o for entries in KINDS.values() for o in entries])}.")
        if getattr(arm, kind) is not None: raise ValueError(f"The arm {name!r} names two kinds of {kind}.")
        arm = arm._replace(**{kind: value})
    return sensible(name, arm)

def arm_title(
    name:str, # an arm
) -> str:     # for a table's head: 'Real-Meta + focal'
    "The paper's name of an arm, and what it adds."
    base, *words = name.split("+")
    base, at, films = base.partition("@")
    title = f"{ARMS[base].title} @{films}" if at else ARMS[base].title
    return " + ".join([title, *(f"dose {o}" if _dose(o) else o for o in words)])

def is_plain(
    name:str, # an arm
) -> bool:    # one of Table 1
    "Whether it is one of `ARMS`, with films of whatever generator, or of a part of what that changed."
    return {*name.split("+")[1:]} <= {*PARTS}

def expand_arms(
    arms:list,   # names to begin with
    rivals=(),   # of `RIVALS`: each joins as two arms, without and with metadata
    doses=(),    # shares of full balance: each joins as an Ensemble of that many synthetic rows; 0 is Real-Meta
    policies=(), # of `POLICIES`: each joins as an Ensemble
    fusions=(),  # of `FUSIONS`: each joins as a Real-Meta
    synthetic_from=(), # NAME=FOLDER of others' films: each that no arm names joins as two, without and with metadata
) -> list:       # names, each once, in this order
    "The arms of a study from the lists of its flags. ValueError for a name that isn't known."
    names = [*arms, *(f"{base}+{o}" for o in rivals for base in ("real", "real-meta")),
             *("real-meta" if str(o) == "0" else f"real-synth-meta+{o}" for o in doses),
             *(f"real-synth-meta+{o}" for o in policies), *(f"real-meta+{o}" for o in fusions)]
    named = {parse_arm(o).films for o in names}
    films = [o.partition("=")[0] for o in synthetic_from]
    names += [f"{base}@{o}" for o in films if o not in named for base in ("real-synth", "real-synth-meta")]
    for o in names: parse_arm(o)
    return list(dict.fromkeys(names))

STEPS = (("meta", "real-meta"), ("real", "real-synth"), ("real", "real-meta"), ("real-meta", "real-synth-meta"))

def primary_of(
    arms:list, # names of a study
) -> tuple:    # (before, after); None where no plain arm has one source more than another
    "What a study asks where nobody says so: Real-Meta to Ensemble as the paper, without synthesis Real to Real-Meta."
    return next((o for o in reversed(STEPS) if set(o) <= set(arms)), None)

def comparisons_of(
    arms:list, # names of a study
) -> list: # (before, after), both in `arms`; the paper's own, Real-Meta to Ensemble, first where it is there
    """What a study compares: one source more; an arm with its plain one; synthesis with each rival of the same inputs;
    pretraining with its control, and with the same films mixed in; an arm with the same one of another generator."""
    from .core.pairs import pairs_of
    return pairs_of(arms, [o for o in reversed(STEPS) if set(o) <= set(arms)])
