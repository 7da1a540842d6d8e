"""A trained classifier as safetensors and json: to share, and to load without running anything that is in the file.

A bundle is a folder of `bundle.json` (the card) and `model.safetensors`, or one .safetensors file with the card in its
header. What is built is always this package's own code, named by the card and checked word by word before."""
import hashlib, math, struct
from textwrap import shorten

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .basics import *
from .card import *
from .cohort import positive
from .data import *
from .learner import *
from .metadata import MetadataTransform
from .runs import versions
from .show import TensorRadiograph
from .typical import typical_ranges

__all__ = ["bundle_card", "load_bundle", "read_card", "save_bundle"]

FACTORIES = dict(image=image_learner, metadata=metadata_learner, fusion=fusion_learner)
FILMS = 2000                # training films at most that `typical_ranges` are measured on
COMPUTING = "torch", "timm" # whose other versions may give other bits

# Files

def _places(path):
    "The file of weights, and that of the card: the same where the bundle is one file."
    path = Path(path)
    if path.suffix == ".safetensors": return path, path
    return path/"model.safetensors", path/"bundle.json"

def _header(file):
    "The words in a safetensors file's header. BundleError for one of a wrong length or form, before anything is read."
    size = file.stat().st_size
    with open(file, "rb") as f:
        n = struct.unpack("<Q", f.read(8).ljust(8, b"\xff"))[0]
        if n > min(MAX_HEADER, size - 8):
            raise BundleError(f"{file} is no safetensors file, or is truncated: its header claims {n:,} bytes, and the "
                              f"file has {size:,}.")
        header = parse_json(f.read(n), file)
    meta = header.get("__metadata__", {}) if isinstance(header, dict) else None
    if isinstance(meta, dict): return meta
    raise BundleError(f"{file} is no safetensors file: its header is no table.")

def read_card(
    path:str|Path, # a bundle's folder or file
) -> dict:
    "A bundle's card, checked. BundleError where it isn't one; FileNotFoundError."
    weights, file = _places(path)
    for o in {weights, file}:
        if not o.is_file(): raise FileNotFoundError(f"{o} does not exist: {path} is no bundle.")
    if file == weights:
        text = _header(file).get("cxr_fastai")
        if not isinstance(text, str): raise BundleError(f"{file}: its header holds no card.")
    else: text = file.read_bytes() if file.stat().st_size <= MAX_CARD else ""
    if len(text) > MAX_CARD or not text: raise BundleError(f"{file}: a card has at most {MAX_CARD:,} bytes, and some.")
    card = parse_json(text, file)
    check_card(card, file)
    return card

def _sha256(card, state):
    "Of all the card says but this, and of each weight's name, type, shape and bytes."
    said = {k: v for k, v in card.items() if k != "sha256"}
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    for name, o in sorted(state.items()):
        digest.update(f"{name} {o.dtype} {tuple(o.shape)}".encode())
        digest.update(o.contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()

def _weights(file):
    "The tensors. BundleError for what is no whole safetensors file."
    _header(file)
    try:
        with safe_open(file, "pt") as f: return {k: f.get_tensor(k) for k in f.keys()}
    except (SafetensorError, OSError, ValueError) as e: raise BundleError(f"{file}: {one_line(e)}.") from None

def _broken(state): return [k for k, o in state.items() if o.is_floating_point() and not o.isfinite().all()]

# Save

def _check_tfms(dls):
    "A bundle carries no code, so that batch transforms which change what is predicted can't come along."
    if not (tfm := dls.transform(RadiographTransform)): return
    gray = torch.arange(2 * tfm.size**2, device=dls.device).remainder(256).byte().reshape(2, 1, tfm.size, tfm.size)
    dls.valid.before_iter() # which tells the transforms that this is no training
    seen = dls.valid.after_batch((TensorRadiograph(gray),))[0]
    if seen.shape == gray.shape and torch.allclose(seen.as_subclass(torch.Tensor), gray / 255, atol=1e-4): return
    raise BundleError("These DataLoaders' tfms change the images of a prediction, too: a bundle can't carry them.")

def _training(dls, recorder):
    "What it was trained on, in numbers; nothing of any one patient."
    rows = dls.train_ds.items
    res = dict(rows=len(rows), patients=rows["patient_id"].nunique(), positives=int(positive(rows).sum()),
               valid_rows=len(dls.valid_ds.items))
    if "synthetic" in rows: res["synthetic"] = int(rows["synthetic"].eq(True).sum())
    if values := getattr(recorder, "values", None): # none before a fit
        res["last_epoch"] = dict(zip(recorder.metric_names[1:-1], values[-1]))
    return res

def _typical(dls):
    "What the real training films look like; {} for a learner of metadata alone."
    tfm, rows = dls.transform(RadiographTransform), dls.train_ds.items
    if not tfm: return {}
    if "synthetic" in rows: rows = rows[~rows["synthetic"].eq(True)]
    rows = rows.sample(min(FILMS, len(rows)), random_state=0)
    return typical_ranges(tfm(rows)[:, 0].numpy())

def _plain(o):
    "json's own types; a number that isn't one is left out, as None."
    if isinstance(o, dict): return {str(k): _plain(v) for k, v in o.items()}
    if isinstance(o, (list, tuple, L)): return [_plain(v) for v in o]
    if hasattr(o, "item"): o = o.item()
    if isinstance(o, float) and not math.isfinite(o): return None
    return o if o is None or isinstance(o, (str, int, float, bool)) else str(o)

def _card(learn, threshold, summary, licence):
    "All that `load_bundle` needs, and what a reader wants to know. A loaded learner passes on what it was told."
    if not hasattr(learn, "settings"): raise BundleError("This learner wasn't made by image_, metadata_ or "
                                                         "fusion_learner of this version; it can't be bundled.")
    dls, known = learn.dls, getattr(learn, "card", {})
    _check_tfms(dls)
    radiograph, metadata = dls.transform(RadiographTransform), dls.transform(MetadataTransform)
    res = learn.settings | dict(format=FORMAT, classes=list(dls.vocab), weights=learn.weights, versions=versions(),
        precision="bf16" if learn.model.bf16 else "fp32", licence=licence, summary=summary or known.get("summary", {}),
        size=radiograph.size if radiograph else 1, bs=dls.valid.bs, # another batch size gives other last bits
        threshold=ifnone(threshold, learn.threshold))
    if res["kind"] != "image":
        res["metadata"] = {o: getattr(metadata, o) for o in ("cat_names", "cont_names", "stats")}
    if known: return res | {o: known[o] for o in ("training", "typical", "versions")}
    return res | dict(training=_training(dls, learn.recorder), typical=_typical(dls))

NOT_STATED = "not stated: ask whoever trained it"

def bundle_card(
    learn:RadiographLearner, # a classifier
    threshold:float=None,    # above it is positive
    summary:dict=None,       # of its making
    licence:str=NOT_STATED,  # of weights and data
) -> tuple[dict, dict]:      # the card, with its checksum, and the weights
    "What a bundle of `learn` holds."
    state = {k: v.detach().cpu().contiguous().clone() for k, v in learn.model.state_dict().items()}
    if broken := _broken(state): raise BundleError(f"{few(broken)}: not a number, or infinite; nothing was saved.")
    card = _plain(_card(learn, threshold, summary, licence))
    return card | dict(sha256=_sha256(card, state)), state

def save_bundle(
    learn:RadiographLearner, # a classifier of `image_learner`, `metadata_learner` or `fusion_learner`
    path:str|Path,           # a folder, or a file that ends in .safetensors
    threshold:float=None,    # a probability above it is positive; None: `learn.threshold`, .5 or that of its bundle
    summary:dict=None,       # what to tell of its making: scores, settings
    licence:str=NOT_STATED, # of weights and training data
) -> Path:                   # `path`
    """Write all that a prediction needs, and no row, name or id: weights; architecture; words and ranges of the
    metadata; normalisation (among the weights); threshold; classes; versions; what it was trained on, in numbers; what
    training films have in common, in patterns of 16 x 16. BundleError for weights that aren't finite, tfms that change
    what is predicted, or a learner made otherwise."""
    card, state = bundle_card(learn, threshold, summary, licence)
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

def _empty_dls(card, device):
    "DataLoaders without a row that encode as the training rows did."
    names = {o: card["metadata"][o] for o in ("cat_names", "cont_names")} if "metadata" in card else {}
    block = radiograph_block(size=card["size"], use=USES[card["kind"]], cache=False, **names)
    stats = card.get("metadata", {}).get("stats", {})
    stats = {k: tuple(v) if k in names["cont_names"] else v for k, v in stats.items()}
    return block.empty(card["classes"], stats, card["bs"], device)

def load_bundle(
    path:str|Path,      # a bundle's folder or file
    device:str=None,    # 'cpu', 'cuda'; fastai's default where not given
    precision:str=None, # 'bf16' or 'fp32'; as it was trained where not given, which gives the same bits
) -> RadiographLearner: # for prediction, with `card`; it has no training rows
    """Build what the card names and fill it with the weights. Nothing in the file is run. BundleError, which names the
    file and what doesn't fit: a card of another form or format, weights that are other than its checksum says, that
    don't fit the architecture, or aren't finite."""
    card, (file, _) = read_card(path), _places(path)
    state = _weights(file)
    if _sha256(card, state) != card["sha256"]:
        raise BundleError(f"{path}: card and weights aren't those that were saved together; get the bundle again.")
    if broken := _broken(state): raise BundleError(f"{file}: {few(broken)} is not a number, or infinite.")
    _warn_of_versions(card, path)
    kwargs = {o: card[o] for o in ("arch", "ps", "fusion", "n_meta", "meta_dropout") if o in card}
    if "arch" in card: kwargs |= dict(weights="none", precision=precision or card["precision"])
    learn = FACTORIES[card["kind"]](_empty_dls(card, device), **kwargs)
    try: learn.model.load_state_dict(state)
    except RuntimeError as e: raise BundleError(f"{file} doesn't fit {card.get('arch', 'the MLP')}: "
                                                f"{shorten(str(e), 200, placeholder=' ...')}") from None
    if "arch" in card: learn.model.backbone.weights = card["weights"]
    learn.card, learn.threshold = card, card["threshold"]
    return learn
