"""What a study is set to: a `Plan`, with the `Training` of its classifiers and the `Gan` of its synthetic films.

Each setting is written down once, here. Flags of a shell, keyword arguments, what names a folder and `settings.json`
are all made of it."""
import hashlib, inspect, platform
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

from fastcore.docments import ann_parts, docments

from . import __version__
from .arms import ARMS, FUSIONS, POLICIES, RIVALS, TRANSLATORS, Translator, expand_arms, parse_arm
from .core.files import check_keywords, few
from .core.generators import check_generators
from .core.sense import check_folds
from .core.settled import Settings
from .core.tuned import check_tune
from .core.words import known_word, Words

__all__ = ["CAT_NAMES", "CONT_NAMES", "GANS", "Gan", "PAPER_ARMS", "PRECISIONS", "PRIMARY", "Plan", "Settings",
           "TRACKERS", "Training", "check_primary", "listed", "named_by_content", "plan_from", "plan_of",
           "settings_digest", "study_flags", "takes", "versions"]

PAPER_ARMS = "real", "meta", "real-meta", "real-synth-meta"
PRIMARY = "real-meta", "real-synth-meta" # the paper's question, where nobody asks another
CAT_NAMES, CONT_NAMES = ("sex", "view"), ("age",) # metadata columns of words, and of numbers, where nobody names others
PROTOCOLS, EPOCH_RULES, PRECISIONS = ("clean", "paper"), ("last", "best"), ("auto", "bf16", "fp16", "fp32")
SELECTS, DIFFAUGS = ("kid", "last"), ("none", "brightness", "contrast", "translation", "cutout") # the last as in losses
MODES = dict(full=1e-3, probe=3e-3) # what is trained -> the largest learning rate where nobody says another
TRACKERS = "tensorboard", "wandb", "mlflow"
PS = .5 # dropout before the output, where nobody says another
PACKAGES = "torch", "fastai", "timm", "pandas", "scikit-learn", "pillow", "numpy"
GANS = { # settings by name: what small compute was measured to do best with, and the reference's own (and the paper's)
    "fast": dict(epochs=30, bs=4, ngf=32, ndf=32, residual=True, upsample="resize", lam=2., identity=0.),
    "reference": dict(epochs=200, bs=1),
    "cut": dict(translator="cut", epochs=30, bs=4, ngf=32, ndf=32, residual=True, upsample="resize", idt_every=2)}
# of a study, whose own `epochs` and `size` are its classifiers'
GAN_FLAGS = dict(gan="gan", epochs="gan_epochs", steps="gan_steps", size="gan_size", select="gan_select",
                 diffaug="gan_diffaug", synthetic="synthetic", metadata="metadata")
LISTS = {"`ARMS`": ARMS, "`RIVALS`": RIVALS, "`POLICIES`": POLICIES, "`FUSIONS`": FUSIONS} # in comments
HEADINGS = dict( # in a help: of a flag, else of whoever takes it
    backbones="model", tune="model", synthetic_from="synthesis", split_seed="data", folds="data",
    repeats="data", load_cohort="data", Training="model", Plan="arms", expand_arms="arms", Gan="synthesis")
RECORDED = ("weights_of split drawn training gan_training data_digest data negative positive versions "
            "cohort tuning generators").split() # in settings.json beside the flags

def listed(
    given:str|Iterable, # text with commas, or any list of words
) -> tuple:
    "Words, one by one."
    return tuple(o.strip() for o in given.split(",") if o.strip()) if isinstance(given, str) else tuple(given)

def _check_counts(**counts):
    "ValueError for one below 1, where it is given."
    for name, n in counts.items():
        if n is not None and n < 1: raise ValueError(f"{name}={n} must be 1 or more.")

class Training(Settings):
    "How every classifier of a study is trained."
    def __init__(self,
        size:int=256,              # side of the square images, pixels
        epochs:int=10,             # training epochs (after a frozen one where the weights are pretrained)
        bs:int=32,                 # images a batch
        lr:float=None,             # largest learning rate of the one-cycle schedule; 1e-3, of a probe 3e-3
        weights:str="auto",        # 'auto' (imagenet's if they can be had), 'imagenet', 'none', or as in resnet50=FILE
        precision:str="auto",      # 'auto' (the fastest that the hardware has), 'bf16', 'fp16' or 'fp32'
        epoch_rule:str="last",     # the epoch that is scored: 'last' as the paper, or 'best' by the valid rows' AUC
        fusion:str="concat",       # how image and metadata merge: one of `FUSIONS`
        ps:float=PS,               # dropout before the output, of classifiers with images; from 0, below 1
        mode:str="full",           # 'full', or 'probe': heads alone, on features that a frozen backbone computes once
        views:int=1,               # of each training film in a probe: as it is, then augmented ones
        cat_names:tuple=None,      # metadata columns of words; the table's where not given
        cont_names:tuple=None,     # metadata columns of numbers; the table's where not given
        tuned:tuple=None,          # what `--tune` chose for a backbone, over the above: NET:lr=.001:epochs=8, ...
    ):
        "ValueError for a word that isn't known, and for a dropout that is none."
        known_word("precision", precision, PRECISIONS)
        known_word("epoch_rule", epoch_rule, EPOCH_RULES)
        known_word("fusion", fusion, FUSIONS)
        lr = MODES[known_word("mode", mode, MODES)] if lr is None else lr
        _check_counts(size=size, epochs=epochs, bs=bs)
        if not 0 < lr < float("inf"): raise ValueError(f"lr={lr:g} must be above 0 and finite.")
        if views < 1 or views > 1 and mode != "probe":
            raise ValueError(f"views={views}: a probe looks at each film once or more, and nothing else has views.")
        if not 0 <= ps < 1: raise ValueError(f"ps={ps:g} is a dropout and must be from 0 to below 1.")
        names = dict(cat_names=cat_names, cont_names=cont_names, tuned=tuned)
        self._settle(locals() | {k: None if o is None else listed(o) for k, o in names.items()})

class Gan(Settings):
    "How a translator (a CycleGAN, or a CUT) is trained, and which synthetic films are made by it."
    def __init__(self,
        gan:str="fast",         # 'fast' (small compute), 'reference' (paper's: 9 blocks, 200 epochs) or 'cut' (one way)
        size:int=None,          # side of its square images, pixels; the classifiers', and without any 256
        epochs:int=None,        # half of them at 2e-4, half falling to zero; as many as `gan` has where not given
        steps:int=None,         # in all, at most: epochs are then shorter, of films that each draws anew
        select:str=None,        # its epoch: 'kid', by valid's films, or 'last'; 'kid' from 8 valid patients a class on
        diffaug:tuple=None,     # what discriminators see is changed, or 'none'; translation,cutout below 100 films
        synthetic:int=None,     # synthetic minority rows; half the majority's training rows where not given
        metadata:str="matched", # of synthetic rows: one of `POLICIES`
        weights:str="auto",     # of the network that judges: 'auto' (imagenet if it can be had) or 'none'
        precision:str="auto",   # 'auto' (the fastest that the hardware has), 'bf16', 'fp16' or 'fp32'
    ):
        "ValueError for a word that isn't known, or doesn't fit another."
        known_word("gan", gan, GANS)
        known_word("metadata", metadata, POLICIES)
        known_word("precision", precision, PRECISIONS)
        if select is not None: known_word("select", select, SELECTS)
        diffaug = tuple(known_word("diffaug", o, DIFFAUGS) for o in listed(diffaug or ())) or None
        if diffaug != ("none",) and "none" in (diffaug or ()): raise ValueError("diffaug: 'none' stands alone.")
        _check_counts(size=size, epochs=epochs, steps=steps, synthetic=synthetic)
        self._settle(locals())

    @property
    def kind(self) -> str:
        "Of translator: a key of `TRANSLATORS`, with which its folder's name begins."
        return GANS[self.gan].get("translator", "cyclegan")

    @property
    def translator(self) -> Translator:
        "What is trained."
        return TRANSLATORS[self.kind]

    @property
    def training(self) -> dict:
        "Keyword arguments of its learner, `epochs bs size`, and `steps select judge` if given: what names its folder."
        preset = {k: o for k, o in GANS[self.gan].items() if k != "translator"}
        preset |= dict(size=self.size or 256, precision=self.precision)
        more = dict(diffaug=",".join(o for o in self.diffaug or () if o != "none"), steps=self.steps)
        if self.select == "kid": more |= dict(select="kid", judge=self.weights)
        preset |= {k: o for k, o in more.items() if o}
        return preset | dict(epochs=preset["epochs"] if self.epochs is None else self.epochs)

class Plan(Settings):
    "What a study is of: backbones x arms x seeds, and what all their cells have in common."
    def __init__(self,
        backbones:tuple=("resnet50", "densenet121", "vgg16"), # timm names; resnet50=FILE or =xrv:NAME: its weights
        arms:tuple=PAPER_ARMS,   # of `ARMS`, in order; +WORD adds a rival, policy, fusion, dose or pretraining
        seeds:tuple=(0,),        # of translator, initialisation, augmentation and shuffling; '0,1,2' repeats every arm
        folds:int=None,          # of a cross-validation: each patient is in test once; one split where not given
        repeats:int=1,           # of the folds, each with parts of its own
        protocol:str="clean",    # 'clean' or 'paper': as its figures imply, leaks and all
        split_seed:int=0,        # of the cohort's draw and of the split
        tune:int=None,           # trials of a search for lr, epochs, dropout and fusion, by valid rows (extra tune)
        primary:tuple=None,      # the comparison of the verdict, 'before,after'; the plan's, or Real-Meta to Ensemble
        alpha:float=None,        # its two-sided error rate over the backbones; the plan's, or .05
        training:Training=None,  # of the classifiers; as it is by default where not given
        gan:Gan=None,            # of the synthetic films; their size is the classifiers' where it isn't given
        synthetic_from:tuple=(), # other generators' films, NAME=FOLDER_OR_CSV each: for the arms real-synth@NAME
    ):
        """ValueError for words that aren't known or don't fit one another, and for a grid without cells. The translator
        computes in the classifiers' precision, and is judged without weights where they have none."""
        backbones, arms, seeds = listed(backbones), listed(arms), _numbers(listed(seeds))
        training, gan, primary = training or Training(), gan or Gan(), listed(primary or ()) or None
        known_word("protocol", protocol, PROTOCOLS)
        check_folds(folds, repeats, protocol)
        synthetic_from = check_generators(listed(synthetic_from or ()), arms, protocol)
        check_primary(primary, alpha, arms)
        if any(o.pretraining and o.own for o in map(parse_arm, arms)) and len(gan.translator.ways) < 2:
            raise ValueError(f"Pretraining is on films of both classes, and a {gan.translator.title} makes the "
                             "minority's alone: take --gan fast, or another generator's films, +pretrain@NAME.")
        if not (backbones and arms and seeds): raise ValueError("A study needs at least a backbone, an arm and a seed.")
        judge = "none" if training.weights == "none" else "auto"
        gan = gan.replace(size=gan.size or training.size, precision=training.precision, weights=judge)
        self._settle(locals())
        check_tune(tune, training, list(self.weights_of), folds, protocol)

    @property
    def weights_of(self) -> dict:
        "Backbone -> weights: its own, or those of `training`."
        return {arch: file or self.training.weights for arch, _, file in (o.partition("=") for o in self.backbones)}

    @property
    def sees(self) -> bool:
        "Whether any of its arms looks at films."
        return any(parse_arm(o).use != "metadata" for o in self.arms)

    def flags(self) -> dict:
        "Every setting by its flag's name: what `settings.json` says, and `plan_from` reads back."
        flat = self.asdict() | self.training.asdict() | {flag: getattr(self.gan, o) for o, flag in GAN_FLAGS.items()}
        flat |= dict(backbones=list(self.weights_of), weights_of=self.weights_of)
        return {k: list(o) if isinstance(o, tuple) else o for k, o in flat.items() if k != "training"}

def _numbers(words):
    if wrong := [o for o in words if not str(o).strip().isdecimal()]:
        raise ValueError(f"--seeds: {few(wrong)} is no whole number; write them as 0,1,2.")
    return tuple(map(int, words))

def check_primary(
    primary:tuple, # (before, after), or None
    alpha:float,   # or None
    arms:list,     # of the study
):
    "ValueError for a primary comparison of other arms than two of the study's, and for an alpha that is no error rate."
    if primary is not None and (len(set(primary)) != 2 or len(primary) != 2 or not set(primary) <= set(arms)):
        raise ValueError(f"The primary comparison {','.join(primary)} must be before,after: two of the arms "
                         f"{', '.join(arms)}.")
    if alpha is not None and not 0 < alpha < .5: raise ValueError(f"alpha={alpha:g} must be above 0 and below .5.")

# One definition, many doors

def _flag(name, told, heading):
    "A parameter as a flag: lists are text with commas, its comment is the help, beside the heading it stands under."
    (kind, more), default, comment = ann_parts(told["anno"]), told["default"], told["docment"]
    if isinstance(default, (tuple, list)) or kind in (tuple, list):
        kind, default = Words, ",".join(map(str, default or ())) or None
    if kind is inspect.Parameter.empty: kind = type(default)
    for mark, words in LISTS.items(): comment = comment.replace(mark, ", ".join(words))
    told = kind, comment, *(more[1:] or filter(None, [heading]))
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[told])

def takes(
    *sources:Callable, # functions or classes, whose parameters have comments
    but=(),            # flags that are left out
) -> Callable:
    """Decorator: what a function takes as `**flags` are the parameters of `sources`, with their comments. A source may
    be (function, {parameter: flag})."""
    flags = {}
    for source in sources:
        source, names = source if isinstance(source, tuple) else (source, None)
        told = docments(source, full=True)
        for o in inspect.signature(source).parameters:
            flag = o if names is None else names.get(o)
            heading = HEADINGS.get(o) or HEADINGS.get(source.__name__)
            if flag and flag not in (*but, *flags): flags[flag] = _flag(flag, told[o], heading)
    def wrap(f):
        signature = inspect.signature(f)
        own = {k: o for k, o in signature.parameters.items() if o.kind != inspect.Parameter.VAR_KEYWORD}
        more = [o for k, o in flags.items() if k not in own]
        f.__signature__ = signature.replace(parameters=[*own.values(), *more])
        return f
    return wrap

PLAN_FLAGS = {o: o for o in Plan.fields() if o not in ("training", "gan")}

@takes((Plan, PLAN_FLAGS), expand_arms, Training, (Gan, GAN_FLAGS), but=["cat_names", "cont_names", "tuned"])
def plan_of(**flags) -> Plan:
    "A plan from its settings' flags, as text or as they are: `plan_of(backbones='resnet50', epochs=4, gan_epochs=2)`."
    check_keywords(flags, [*inspect.signature(plan_of).parameters, *Training.fields()], "A plan")
    more = {o: listed(flags.get(o) or ()) for o in ("rivals", "doses", "policies", "fusions", "synthetic_from")}
    arms = expand_arms(listed(flags.get("arms", PAPER_ARMS)), **more)
    training = Training(**{o: flags[o] for o in Training.fields() if o in flags})
    gan = Gan(**{o: flags[flag] for o, flag in GAN_FLAGS.items() if flag in flags})
    own = {o: flags[o] for o in Plan.fields() if o in flags}
    return Plan(**own | dict(arms=arms, training=training, gan=gan))

def _backbones(settings):
    own = {o: file for o, file in settings["weights_of"].items() if file != settings["weights"]}
    return [f"{o}={own[o]}" if o in own else o for o in settings["backbones"]]

def plan_from(
    settings:dict, # of `Plan.flags`, as `settings.json` has it
) -> Plan:
    "The plan that a study's settings are of."
    flags = {k: o for k, o in settings.items() if k in {*inspect.signature(plan_of).parameters, *Training.fields()}}
    return plan_of(**flags | dict(backbones=_backbones(settings)))

def study_flags(
    settings:dict, # as `settings.json` has it
) -> dict:         # flag -> value; a name that is none of ours is left in it
    "The flags of the command that a study is of. ValueError where it doesn't say which data."
    if "cohort" not in settings:
        raise ValueError("it doesn't say which data: an older version wrote it, or the rows were a notebook's.")
    flags = {k: o for k, o in settings.items() if k not in RECORDED}
    if flags.get("gan_size") == flags["size"]: del flags["gan_size"] # it follows
    return flags | settings["cohort"] | dict(backbones=_backbones(settings))

# What names a folder

LOCAL = "xrv:", "local-dir:" # before a file or a folder of weights
WEIGHT_FILES = "config.json", "model.safetensors", "pytorch_model.bin" # of a folder: a bundle's, or timm's

def settings_digest(
    settings:dict, # anything with a text
) -> str:          # eight hex letters
    "What names a folder: every setting that determines what is in it."
    return hashlib.sha256(repr(sorted(settings.items())).encode()).hexdigest()[:8]

def named_by_content(
    weights:str, # a word, a file, a folder, or a name
) -> str:
    "Weights that lie here by their content, so that others of that name are another cell; elsewhere, by their name."
    kind = next((o for o in LOCAL if weights.startswith(o)), "")
    path = Path(weights.removeprefix(kind))
    files = [o for o in (path, *(path/name for name in WEIGHT_FILES)) if o.is_file()]
    if not files: return weights
    return kind + hashlib.sha256(b"".join(o.read_bytes() for o in files)).hexdigest()[:16]

def versions(
    packages=PACKAGES, # beside this package
) -> dict:
    "Versions by package."
    return dict(cxr_fastai=__version__, python=platform.python_version()) | {o: version(o) for o in packages}
