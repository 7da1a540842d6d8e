"""A bundle on the Hugging Face hub, with a model card that is written from the run, and back.

Only the card, the weights and the model card go up. What comes down is loaded as
any bundle is: nothing in it is run."""
from contextlib import contextmanager
from math import isnan
from pathlib import Path
from tempfile import TemporaryDirectory

import huggingface_hub as hub
from huggingface_hub.utils import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

from ..arms import arm_title
from ..core.csvs import read_csv
from ..core.files import one_line, say
from ..core.templates import fill_template
from ..models.learner import RadiographLearner
from ..stats.formats import digits_for, escape_markdown, without_html
from ..stats.scoring import METRICS
from .bundle import load_bundle, read_card, save_bundle
from .card import BundleError, OUT_OF_FOLD
from .front import front_matter, hub_ids, limits_of

__all__ = ["from_hub", "model_card", "push_to_hub"]

SHOWN = {o: METRICS[o].words for o in ("recall", "specificity", "precision", "rocauc", "pr_auc", "brier")}
SHOWN |= dict(recall_at_90="recall at 90% specificity on valid")
FILES = "bundle.json", "model.safetensors"
_TEMPLATE = Path(__file__).parent/"templates"/"model_card.md.j2"
EACH = "each asked of those members that weren't trained on it" # `OUT_OF_FOLD`
TOUCHED = (" They are the folds' test films: at this threshold, no figure on them is untouched any more, and what all "
           "members together have is for other films to say.")
LOG_IN = "log in (hf auth login) or give a token with access"
REFUSALS = {401: LOG_IN, 403: LOG_IN, 404: "check the name and that you may see it"}
HTTP = "httpx", "httpx2", "requests"

def _facts(facts):
    "A line of markdown for each fact that is known."
    known = {name: said for name, said in facts.items() if said not in (None, "", {})}
    return "\n".join(f"- {escape_markdown(name)}: {escape_markdown(said)}" for name, said in known.items())

def _in_study(card, study):
    "The scores, by metric, of the very line of a study's tables that the bundle is a cell of."
    cell = card["summary"].get("cell", {})
    if not (name := cell.get("folder")):
        raise ValueError(f"The bundle doesn't say which cell of a study it is, so that nothing in {study} is its own: "
                         "take the bundle of a cell that this version ran.")
    cells = read_csv(Path(study)/"cells.csv")
    own = cells[cells["folder"].astype(str).map(lambda o: Path(o).name) == name]
    if own.empty: raise ValueError(f"{study} has no cell {name}: the bundle is of another study.")
    same_arm = own[own["arm"] == cell.get("arm")] # arms that are trained alike share a cell
    own = (own if same_arm.empty else same_arm).iloc[0]
    table = read_csv(Path(study)/"scores.csv")
    table = table[(table["backbone"] == own["backbone"]) & (table["arm"] == own["arm"])]
    if table.empty: raise ValueError(f"{study} has no scores of {own['backbone']}, arm {own['arm']}.")
    return table.set_index("metric")

def _table(lines):
    "Markdown of (metric, value, interval)."
    return "\n".join(["| metric | value | 95% interval |", "|---|---|---|", *(f"| {' | '.join(o)} |" for o in lines)])

def _interval(mean, low, high):
    "A value and its interval in words; '-' for what isn't defined."
    digits = digits_for(low, high)
    value, low, high = ("-" if isnan(o) else f"{o:.{digits}f}" for o in (mean, low, high))
    return value, "-" if "-" in (low, high) else f"{low} to {high}"

def _study_metrics(own, card):
    "What a study found on its test rows, as means over seeds."
    one = own.iloc[0]
    seeds = "one seed: an anecdote"
    if "members" in card:
        seeds = (f"mean over {one['seeds']} seeds, model by model; this file is the mean of {len(card['members'])} "
                 "models")
    elif one["seeds"] > 1:
        seeds = (f"mean over {one['seeds']} seeds of this architecture and arm, or those of them where a figure is "
                 "defined; this file is one of them")
    lines = [(words, *_interval(*own.loc[k, ["mean", "low", "high"]])) for k, words in SHOWN.items() if k in own.index]
    return (f"{one['n']} real test rows, {one['positives']} positive, {seeds}. The study's line: "
            f"{escape_markdown(one['backbone'])}, {escape_markdown(one['arm'])}; protocol '{one['protocol']}'. "
            f"Intervals are of the test patients, not of training or of the split.\n\n{_table(lines)}")

def _test(card): return card["summary"].get("test", {})
def _of_folds(card): return "members" in card and bool(card["summary"].get("cell", {}).get("folds"))

def _of_whom(card):
    "Whose scores those are that were found when the bundle was saved."
    n = len(card.get("members", []))
    if not n: return "one seed: an anecdote"
    if not _of_folds(card): return f"of the mean of {n} models, on one split"
    return (f"each asked of those of the {n} models that weren't trained on it: out of fold. The mean of all of them, "
            "which this file is, has no film of its own left to be scored on")

def _own_metrics(card):
    "What was found when the bundle was saved."
    test = _test(card)
    if not test: return "None were stored with this model. Measure it before anyone relies on it."
    test = {k: v for k, v in test.items() if v is not None} # what one class alone can't give
    spans = dict.fromkeys(SHOWN, "not stored")
    if "recall_low" in test: spans["recall"] = f"{test['recall_low']:.3f} to {test['recall_high']:.3f} (Wilson)"
    lines = [(words, f"{test[k]:.3f}", spans[k]) for k, words in SHOWN.items() if k in test]
    return (f"{test.get('n')} test rows, {test.get('positives')} positive, {_of_whom(card)}. Real rows only.\n\n"
            f"{_table(lines)}")

def _chosen(card):
    "How the probabilities and the threshold came about, as a sentence; '' where they are as trained."
    known, how = card.get("chosen"), []
    if "temperature" in card: how.append(f"log odds are divided by a temperature of {card['temperature']:.3g}")
    if known is None: return f"Its {how[0]}." if how else ""
    if "threshold" in known: how.append(f"the threshold is by the rule {known['threshold']}")
    rates = [f"{o} {known[o]:.3f} ({known[f'{o}_low']:.3f} to {known[f'{o}_high']:.3f})"
             for o in ("specificity", "recall")]
    fold = known.get("side") == OUT_OF_FOLD
    on, what = (f"{OUT_OF_FOLD}, on", "films") if fold else ("on", "valid rows")
    but, then = (EACH, TOUCHED) if fold else ("and on no test row", "")
    return (f"Chosen {on} {known['rows']:,} {what} of {known['patients']:,} patients, {known['positives']:,} positive, "
            f"{but}: {'; '.join(how)}. There it has {', '.join(rates)}.{then}")

def _inputs(card):
    facts, size, metadata = {}, card["size"], card.get("metadata", dict(cont_names=[], stats={}))
    if card["kind"] != "metadata": facts["image"] = f"one gray frontal film, squashed to {size} x {size} pixels"
    for name, known in metadata["stats"].items():
        facts[name] = (f"number, {known[0]:g} to {known[1]:g} in training" if name in metadata["cont_names"] else
                       f"one of {', '.join(known)}")
    return f"{_facts(facts)}\n\nAny metadata may be missing." if metadata["stats"] else _facts(facts)

def _trained(card, settings):
    cell, several = card["summary"].get("cell", {}), len(card.get("members", []))
    arm, rule = cell.get("arm") or settings.get("arm"), settings.get("epoch_rule")
    made = [f"{several} models, whose mean it is", *(f"{k}: {cell[k]}" for k in ("folds", "seeds") if k in cell)]
    return _facts({
        "members": ", ".join(made) if several else None,
        "arm": f"{arm_title(arm)} ({arm})" if arm else None, "architecture": card.get("arch"),
        "fusion of image and metadata": card.get("fusion"), "initial weights": card["weights"],
        "epochs": settings.get("epochs"), "largest learning rate": settings.get("lr"), "batch": card["bs"],
        "seed": settings.get("seed"), "protocol": settings.get("protocol"), "precision": card["precision"],
        "scored at": f"the {rule} epoch" if rule else None,
        "versions": ", ".join(f"{name} {version}" for name, version in card["versions"].items())})

def _cohort(card):
    words = {"training rows": "rows", "patients": "patients", "positive": "positives", "of them synthetic": "synthetic",
             "valid rows": "valid_rows"}
    facts = {said: card["training"].get(name) for said, name in words.items()}
    return _facts(facts | ({"these numbers": "of one member, on average"} if "members" in card else {}))

def _arguments(films, names):
    "Of `learn.predict`, as Python."
    if films: return 'image="film.png"'
    return ", ".join(f"{o}=..." if o.isidentifier() else f"**{{{o!r}: ...}}" for o in names)

def model_card(
    bundle:str|Path,     # of `save_bundle`
    study:str|Path=None, # folder of the study that the model is a cell of: its means and intervals are quoted
    datasets=(),         # ids of the hub's data sets that it was trained on, 'OWNER/NAME' or a list of them
) -> str:                # markdown, with the hub's front matter
    """What a model is, what it was trained on, what it scored, what isn't known; before it the hub's metadata, with the
    test figures as its model-index. ValueError for another study's folder, and for what is no id."""
    card, datasets = read_card(bundle), hub_ids(datasets)
    settings = card["summary"].get("settings", {})
    (negative, positive), films = card["classes"], card["kind"] != "metadata"
    names = list(card.get("metadata", {}).get("stats", {}))
    own = _in_study(card, study) if study else None
    metrics = _own_metrics(card) if own is None else _study_metrics(own, card)
    measured = _test(card) if own is None else own["mean"].to_dict()
    if "members" in card and (_of_folds(card) or own is not None): measured = {} # of the mean of all nothing is known
    cautions, limits = limits_of(card)
    return fill_template(
        _TEMPLATE, md=escape_markdown, front=front_matter(card, measured, datasets), positive=positive,
        negative=negative, films=films, names=names, flags=films and card["typical"], threshold=card["threshold"],
        chosen=_chosen(card), cautions=cautions, limits=limits, inputs=_inputs(card), cohort=_cohort(card),
        trained=_trained(card, settings), metrics=metrics, licence=without_html(card["licence"]),
        asked=_arguments(films, names))

@contextmanager
def _told(repo_id):
    "The hub's errors as one sentence."
    try: yield
    except OfflineModeIsEnabled: raise ConnectionError("HF_HUB_OFFLINE is set: unset it to reach the hub.") from None
    except HfHubHTTPError as e:
        status = getattr(e.response, "status_code", "no")
        why = REFUSALS.get(status, "try again")
        raise ConnectionError(f"The hub refused {repo_id} (status {status}): {why}.") from None
    except Exception as e: # of whichever package speaks http for huggingface_hub
        if not isinstance(e, LocalEntryNotFoundError) and type(e).__module__.split(".")[0] not in HTTP: raise
        raise ConnectionError(f"The hub can't be reached for {repo_id}: {one_line(e)}") from None

def push_to_hub(
    bundle:str|Path,     # of `save_bundle`
    repo_id:str,         # 'OWNER/NAME'; made where it is missing
    study:str|Path=None, # as of `model_card`
    datasets=(),         # too
    private:bool=True,   # of a repository that is made
    token:str=None,      # None: that of `hf auth login`, or HF_TOKEN
    endpoint:str=None,   # of another hub than huggingface.co
) -> str:                # the commit's address
    """Load the bundle, to be sure that it is whole, and send it with its model card in one commit. ConnectionError
    where the hub can't be reached, or refuses."""
    learn, text = load_bundle(bundle, "cpu"), model_card(bundle, study, datasets).replace("OWNER/NAME", repo_id)
    with TemporaryDirectory() as folder, _told(repo_id):
        save_bundle(learn, folder, licence=learn.card["licence"])
        (Path(folder)/"README.md").write_text(text, encoding="utf-8")
        api = hub.HfApi(endpoint, token)
        api.create_repo(repo_id, private=private, exist_ok=True)
        return api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message="A cxr_fastai bundle").commit_url

def from_hub(
    repo_id:str,        # 'OWNER/NAME'
    revision:str=None,  # a commit, to get the same model for ever; None: the newest
    token:str=None,     # None: that of `hf auth login`, or HF_TOKEN
    endpoint:str=None,  # of another hub than huggingface.co
    folder:str|Path=None, # where it is kept; None: the hub's own cache
) -> RadiographLearner: # as of `load_bundle`
    """Fetch a bundle, these two files only, load it, and print its card's warnings and limits. ConnectionError;
    BundleError for what is no bundle."""
    kwargs = dict(revision=revision, token=token, endpoint=endpoint, cache_dir=folder)
    with _told(repo_id):
        try: files = [hub.hf_hub_download(repo_id, o, **kwargs) for o in FILES]
        except LocalEntryNotFoundError: raise
        except EntryNotFoundError:
            raise BundleError(f"{repo_id} is no bundle: it needs {' and '.join(FILES)}.") from None
    learn = load_bundle(Path(files[0]).parent)
    say(f"{repo_id}:", *(o.replace("**", "") for o in limits_of(learn.card)), sep="\n\n")
    return learn
