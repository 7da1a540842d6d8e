"""A trained classifier as safetensors and json: to share, and to load without running anything that is in the file.

A bundle is a folder of `bundle.json` (the card) and `model.safetensors`, or one .safetensors file with the card in its
header. What is built is always this package's own code, named by the card and checked word by word before."""
import json, math, warnings
from copy import deepcopy
from pathlib import Path

import torch
import pandas as pd
from fastcore.foundation import L
from safetensors import SafetensorError
from safetensors.torch import save_file

from ..cohort.phantom import is_drawn
from ..cohort.rows import is_synthetic, positive
from ..cohort.seen import Seen
from ..core.files import atomic, one_line, write_json
from ..data.loaders import radiograph_block
from ..data.metadata import fitted_metadata, JoinedMetadata
from ..data.show import TensorRadiograph
from ..models.backbone import create_backbone
from ..models.ensemble import Backbones, build_ensemble, ensemble_learner
from ..models.fusion import build_model
from ..models.learner import fusion_learner, image_learner, metadata_learner, RadiographLearner
from ..settings import versions
from .card import BundleError, check_card, FORMAT, MAX_CARD, members_of, parse_json, USES
from .chosen import settle
from .lookalike import typical_ranges
from .members import backbones_in, joined_card, joined_state, temperatures_of
from .tensors import (check_types, check_values, file_header, file_types, mend_variances, read_weights,
    sha256_of as _sha256)

__all__ = ["bundle_card", "ensemble_of", "load_bundle", "read_card", "save_bundle"]

FACTORIES = dict(image=image_learner, metadata=metadata_learner, fusion=fusion_learner)
FILMS = 2000                # training films at most that `typical_ranges` are measured on
COMPUTING = "torch", "timm" # whose other versions may give other bits
MAX_WEIGHTS = 500_000_000 # numbers; VGG16 has 138 million

# Files

def _places(path):
    "The file of weights, and that of the card: the same where the bundle is one file."
    path = Path(path)
    if path.suffix == ".safetensors": return path, path
    return path/"model.safetensors", path/"bundle.json"

def read_card(
    path:str|Path, # a bundle's folder or file
) -> dict:
    "A bundle's card, checked. BundleError where it isn't one; FileNotFoundError."
    weights, file = _places(path)
    for o in {weights, file}:
        if not o.is_file(): raise FileNotFoundError(f"{o} does not exist: {path} is no bundle.")
    if file == weights:
        text = file_header(file).get("cxr_fastai")
        if not isinstance(text, str): raise BundleError(f"{file}: its header holds no card.")
    else: text = file.read_bytes() if file.stat().st_size <= MAX_CARD else ""
    if len(text) > MAX_CARD or not text: raise BundleError(f"{file}: a card has at most {MAX_CARD:,} bytes, and some.")
    card = parse_json(text, file)
    check_card(card, file)
    return card

# Save

def _check_tfms(dls):
    "A bundle carries no code, so that batch transforms which change what is predicted can't come along."
    if not (tfm := dls.radiograph): return
    gray = torch.arange(2 * tfm.size**2, device=dls.device).remainder(256).byte().reshape(2, 1, tfm.size, tfm.size)
    dls.valid.before_iter() # which tells the transforms that this is no training
    seen = dls.valid.after_batch((TensorRadiograph(gray),))[0]
    if seen.shape == gray.shape and torch.allclose(seen.as_subclass(torch.Tensor), gray / 255, atol=1e-4): return
    raise BundleError("These DataLoaders' tfms change the images of a prediction, too: a bundle can't carry them.")

def _check_loss(learn):
    logits = torch.tensor([[0., 1], [2, 0]])
    if not torch.allclose(learn.loss_func.activation(logits), (logits/learn.temperature).softmax(1)):
        raise BundleError("This learner's loss_func makes other probabilities than softmax: a bundle can't carry it.")

def _training(dls, recorder):
    "What it was trained on, in numbers; nothing of any one patient."
    rows = dls.train_ds.items
    res = dict(rows=len(rows), patients=rows["patient_id"].nunique(), positives=int(positive(rows).sum()),
               valid_rows=len(dls.valid_ds.items), drawn=int(is_drawn(rows)),
               leaky=int(dls.train_ds.protocol == "paper")) # whole numbers, as a card's table of training has
    if "synthetic" in rows: res["synthetic"] = int(is_synthetic(rows).sum())
    if values := getattr(recorder, "values", None): # none before a fit
        res["last_epoch"] = dict(zip(recorder.metric_names[1:-1], values[-1]))
    return res

def _typical(dls):
    "What the real training films look like; {} for a learner of metadata alone."
    tfm, rows = dls.radiograph, dls.train_ds.items
    if not tfm: return {}
    rows = rows[~is_synthetic(rows)]
    rows = rows.sample(min(FILMS, len(rows)), random_state=0)
    return typical_ranges(tfm(rows)[:, 0].numpy())

def _plain(o):
    "json's own types; a number that isn't one is left out, as None."
    if isinstance(o, dict): return {str(k): _plain(v) for k, v in o.items()}
    if isinstance(o, (list, tuple, L)): return [_plain(v) for v in o]
    if hasattr(o, "item"): o = o.item()
    if isinstance(o, float) and not math.isfinite(o): return None
    return o if o is None or isinstance(o, (str, int, float, bool)) else str(o)

def _operating(learn, threshold, calibrate, valid):
    "Temperature, threshold and how they were chosen; what isn't asked for is the learner's own."
    found, known = settle(learn, threshold, calibrate, valid), learn.card
    res = dict(threshold=learn.threshold) | found
    temperature = res.pop("temperature", learn.temperature)
    same = res["threshold"] == known.get("threshold") and temperature == learn.temperature
    if "chosen" in known and same: res = dict(chosen=known["chosen"]) | res
    return res | (dict(temperature=temperature) if temperature != 1 else {})

def _card(learn, summary, licence, seen):
    "All that `load_bundle` needs, and what a reader wants to know. A loaded learner passes on what it was told."
    if not getattr(learn, "settings", None):
        raise BundleError("This learner wasn't made by image_, metadata_ or fusion_learner of this version; it can't "
                          "be bundled.")
    dls, known = learn.dls, learn.card
    _check_tfms(dls)
    _check_loss(learn)
    radiograph, metadata = dls.radiograph, dls.metadata
    res = learn.settings | dict(format=FORMAT, classes=list(dls.vocab), weights=learn.weights, versions=versions(),
        precision=learn.model.precision, licence=licence, summary=summary or known.get("summary", {}),
        size=radiograph.size if radiograph else 1, bs=dls.valid.bs) # another batch size gives other last bits
    if radiograph: res |= dict(white=radiograph.white)
    if "members" in known: res |= {o: known[o] for o in ("members", "backbones") if o in known}
    elif radiograph: res |= dict(normalisation=learn.model.backbone.normalisation)
    if seen: res["seen"] = learn.seen.card()
    if res["kind"] != "image":
        res["metadata"] = {o: getattr(metadata, o) for o in ("cat_names", "cont_names", "stats")}
    if known: return res | {o: known[o] for o in ("training", "typical", "versions")}
    return res | dict(training=_training(dls, learn.recorder), typical=_typical(dls))

NOT_STATED = "not stated: ask whoever trained it"

def bundle_card(
    learn:RadiographLearner, # a classifier
    threshold:float|str=None, # as of `save_bundle`, as all that follows
    summary:dict=None,       # of its making
    licence:str=NOT_STATED,  # of weights and data
    seen:bool=True,          # with salted hashes of the training patients and films
    calibrate:str=None,      # or 'temperature'
    valid:pd.DataFrame=None, # rows to choose on
) -> tuple[dict, dict]:      # the card, with its checksum, and the weights
    "What a bundle of `learn` holds."
    state = {k: v.detach().cpu().contiguous().clone() for k, v in learn.model.state_dict().items()}
    try: check_values(mend_variances(state), state, "The model")
    except BundleError as e: raise BundleError(f"{str(e)[:-1]}; nothing was saved.") from None
    card = _plain(_card(learn, summary, licence, seen) | _operating(learn, threshold, calibrate, valid))
    return card | dict(sha256=_sha256(card, state)), state

def save_bundle(
    learn:RadiographLearner, # a classifier of `image_learner`, `metadata_learner` or `fusion_learner`
    path:str|Path,           # a folder, or a file that ends in .safetensors
    threshold:float|str=None, # above it is positive: a number, 'specificity=.9', 'youden'; None: `learn.threshold`
    summary:dict=None,       # what to tell of its making: scores, settings
    licence:str=NOT_STATED,  # of weights and training data
    seen:bool=True,          # with salted hashes of the training patients and films, so that none is ever a test row
    calibrate:str=None,      # 'temperature': probabilities that mean what they say; None: as the learner says them
    valid:pd.DataFrame=None, # labelled rows that these two are chosen on; None: the learner's own valid rows
) -> Path:                   # `path`
    """Write all that a prediction needs, and no row, name or id: weights; architecture; words and ranges of the
    metadata; normalisation (among the weights); threshold; classes; versions; what it was trained on, in numbers; what
    training films have in common, in patterns of 16 x 16; what was seen, as salted hashes. BundleError for weights that
    aren't finite, tfms that change what is predicted, or a learner made otherwise. LeakError where a threshold or a
    temperature would be chosen on rows of train or test."""
    card, state = bundle_card(learn, threshold, summary, licence, seen, calibrate, valid)
    weights, file = _places(path)
    check_card(card, file)
    meta = dict(cxr_fastai=json.dumps(card)) if file == weights else None
    with atomic(weights) as tmp:
        try: save_file(state, tmp, meta)
        except SafetensorError as e: raise OSError(str(e)) from None # `atomic` says of which file
    if file != weights: write_json(file, card)
    return Path(path)

# Load

def _warn_of_versions(card, path):
    "Other versions predict the same up to the last bits, or so they should."
    now = versions(COMPUTING)
    other = [f"{o} {card['versions'].get(o)}, here {now[o]}" for o in COMPUTING if card["versions"].get(o) != now[o]]
    if other: warnings.warn(f"{path} was made by {'; '.join(other)}: its predictions may differ in the last digits.")

def _metadata(card):
    "The transform that encodes as the training rows were; None where a model reads no metadata."
    if "metadata" not in card: return
    parts = [fitted_metadata(**o["metadata"]) for o in members_of(card)]
    return JoinedMetadata(parts) if parts else fitted_metadata(**card["metadata"])

def _empty_dls(card, device):
    "DataLoaders without a row that encode as the training rows did."
    metadata = _metadata(card)
    names = dict(cat_names=metadata.cat_names, cont_names=metadata.cont_names) if metadata else {}
    block = radiograph_block(size=card["size"], use=USES[card["kind"]], cache=False, **names)
    return block.empty(card["classes"], metadata, card["bs"], device, card.get("white"))

def _named(card): return card.get("arch", "the MLP")

def _skeleton(card, dls, file):
    "The model that a card names, on the meta device: names, shapes and types, and not a byte of weights."
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            backbone = create_backbone(card["arch"], "none", card["size"]) if "arch" in card else None
            if "members" not in card: model = build_model(card, backbone, dls.metadata, len(card["classes"]))
            else: model = build_ensemble(card, [deepcopy(backbone) for _ in range(card.get("backbones", 0))],
                                         dls.metadata, len(card["classes"]), temperatures_of(card))
    except Exception as e: # whatever an architecture says of a size that it can't have
        raise BundleError(f"{file}: {_named(card)} can't be built at {card['size']} pixels: {one_line(e)}") from None
    n = sum(o.numel() for o in model.parameters())//len(card.get("members", [0]))
    if n > MAX_WEIGHTS: raise BundleError(f"{file}: {_named(card)} has {n:,} weights, more than {MAX_WEIGHTS:,}.")
    return model

def _take(cards, model, path):
    "What cards say of their backbones."
    if not (backbone := getattr(model, "backbone", None)): return
    for card, own in zip(cards, backbone if isinstance(backbone, Backbones) else [backbone]):
        if card.get("normalisation", own.normalisation) != own.normalisation:
            raise BundleError(f"{path}: the card's normalisation isn't that of the weights, {own.normalisation}.")
        own.weights = card["weights"]

def _backbones(card, skeleton):
    "Without weights; nothing is run to measure them, which takes the memory of an image's whole graph."
    known = getattr(skeleton, "backbone", None)
    like = known[0] if isinstance(known, Backbones) else known
    n = card.get("backbones", 1) if "arch" in card else 0
    return [create_backbone(card["arch"], "none", card["size"], like) for _ in range(n)]

def _blank(card, dls, skeleton, precision):
    "A learner of what the card names, whose weights are to come."
    backbones = _backbones(card, skeleton)
    kwargs = dict(precision=precision or card["precision"]) if backbones else {}
    settings = {o: card[o] for o in ("arch", "ps", "fusion", "n_meta", "meta_dropout") if o in card}
    if "members" in card:
        kind = dict(kind=card["kind"])
        return ensemble_learner(dls, kind | settings, backbones, temperatures_of(card), **kwargs)
    learn = FACTORIES[card["kind"]](dls, **settings | kwargs | (dict(arch=backbones[0]) if backbones else {}))
    learn.settings |= {o: card[o] for o in ("arch",) if o in card}
    return learn

def _filled(card, dls, skeleton, state, precision, path):
    "A learner of a card and its weights."
    learn = _blank(card, dls, skeleton, precision)
    check_values(state, learn.model.state_dict(), path)
    learn.model.load_state_dict(state)
    _take(members_of(card) or [card], learn.model, path)
    learn.card, learn.threshold, learn.temperature = card, card["threshold"], card.get("temperature", 1.)
    learn.seen = learn.dls.seen = Seen.from_card(card.get("seen"))
    return learn

def load_bundle(
    path:str|Path,      # a bundle's folder or file
    device:str=None,    # 'cpu', 'cuda'; fastai's default where not given
    precision:str=None, # 'bf16', 'fp16' or 'fp32'; as it was trained where not given, which gives the same bits
) -> RadiographLearner: # for prediction, with `card`; it has no training rows
    """Build what the card names and fill it with the weights. Nothing in the file is run. BundleError, which names the
    file and what doesn't fit: a card of another form or format, weights that are other than its checksum says, that
    don't fit the architecture, or aren't finite."""
    card, (file, _) = read_card(path), _places(path)
    dls = _empty_dls(card, device)
    skeleton = _skeleton(card, dls, file)
    check_types(file_types(file), skeleton.state_dict(), file, _named(card))
    state = read_weights(file)
    if _sha256(card, state) != card["sha256"]:
        raise BundleError(f"{path}: card and weights aren't those that were saved together; get the bundle again.")
    _warn_of_versions(card, path)
    return _filled(card, dls, skeleton, state, precision, file)

def ensemble_of(
    members:list,         # classifiers, or bundles of `save_bundle`: of the folds or seeds of one arm
    threshold:float=None, # above it is positive; theirs where not given
    summary:dict=None,    # what to tell of its making
    device:str=None,      # 'cpu', 'cuda'; fastai's default where not given
) -> RadiographLearner:   # as of `load_bundle`
    """One classifier whose probability is the mean of its members', each of which encodes metadata and normalises
    images as it was trained to; `save_bundle` makes one file of it. BundleError for members that differ in more than
    what they learnt; ValueError for a threshold that they don't share."""
    learners = [o if isinstance(o, RadiographLearner) else load_bundle(o, "cpu") for o in members]
    cards, states = zip(*(bundle_card(o) for o in learners)) if learners else ((), ())
    card, state = joined_card(cards, threshold, summary), joined_state(states)
    if "arch" in card: card["backbones"] = backbones_in(state)
    card["sha256"] = _sha256(card := _plain(card), state)
    dls = _empty_dls(card, device)
    learn = _filled(card, dls, _skeleton(card, dls, "The ensemble"), state, None, "The ensemble")
    held = [o.dls.test_rows for o in learners if len(o.dls.test_rows) and o.dls.train_ds.protocol == "clean"]
    if held: dls.train_ds.rows = pd.concat(held, ignore_index=True) # on which nothing may be chosen
    return learn
