"""A bundle on the Hugging Face hub, with a model card that is written from the run, and back.

Only the card, the weights and the model card go up. What comes down is loaded as
any bundle is: nothing in it is run."""
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import dedent

import huggingface_hub as hub
from huggingface_hub.utils import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

from ..arms import arm_title
from ..core.csvs import read_csv
from ..core.files import one_line
from ..models.learner import RadiographLearner
from ..stats.formats import digits_for, escape_markdown, without_html
from ..stats.scoring import METRICS
from .bundle import load_bundle, read_card, save_bundle
from .card import BundleError

__all__ = ["from_hub", "model_card", "push_to_hub"]

SHOWN = {o: METRICS[o].words for o in ("recall", "specificity", "precision", "rocauc", "pr_auc", "brier")}
SHOWN |= dict(recall_at_90="recall at 90% specificity on valid")
FILES = "bundle.json", "model.safetensors"
DRAWN = "Trained on drawn films: it says nothing about any illness, and no score of it does."
LEAKY = ("Protocol 'paper', leaky on purpose: split by image, so that patients may stand on several sides, and "
         "synthetic films with them; its scores flatter.")
HTTP = "httpx", "httpx2", "requests"

def _facts(pairs):
    known = ((k, v) for k, v in pairs if v not in (None, "", {}))
    return "\n".join(f"- {escape_markdown(k)}: {escape_markdown(v)}" for k, v in known)

def _in_study(card, study):
    "The scores, by metric, of the very line of a study's tables that the bundle is a cell of."
    cell = card["summary"].get("cell", {})
    if not (name := cell.get("folder")):
        raise ValueError(f"The bundle doesn't say which cell of a study it is, so that nothing in {study} is its own: "
                         "take the bundle of a cell that this version ran.")
    cells = read_csv(Path(study)/"cells.csv")
    own = cells[cells["folder"].astype(str).map(lambda o: Path(o).name) == name]
    if own.empty: raise ValueError(f"{study} has no cell {name}: the bundle is of another study.")
    own = own.loc[(own["arm"] == cell.get("arm")).sort_values(ascending=False, kind="stable").index].iloc[0]
    table = read_csv(Path(study)/"scores.csv")
    table = table[(table["backbone"] == own["backbone"]) & (table["arm"] == own["arm"])]
    if table.empty: raise ValueError(f"{study} has no scores of {own['backbone']}, arm {own['arm']}.")
    return table.set_index("metric")

def _line(words, mean, low, high):
    value, low, high = (f"{o:.{digits_for(low, high)}f}".replace("nan", "-") for o in (mean, low, high))
    return f"| {words} | {value} | {low if '-' in (low, high) else f'{low} to {high}'} |"

def _metrics(card, study):
    "A table of the test rows' figures, from the study's means over seeds where there is one, else this model's own."
    test = card["summary"].get("test", {})
    head = "| metric | value | 95% interval |\n|---|---|---|\n"
    if study:
        own = _in_study(card, study)
        one = own.iloc[0]
        lines = [_line(words, *own.loc[k, ["mean", "low", "high"]]) for k, words in SHOWN.items() if k in own.index]
        seeds = (f"mean over {one['seeds']} seeds of this architecture and arm, or those of them where a figure is "
                 "defined; this file is one of them" if one["seeds"] > 1 else "one seed: an anecdote")
        return (f"{one['n']} real test rows, {one['positives']} positive, {seeds}. The study's line: "
                f"{escape_markdown(one['backbone'])}, {escape_markdown(one['arm'])}; protocol '{one['protocol']}'. "
                "Intervals are of the test patients, not of training or of the split.\n\n" + head + "\n".join(lines))
    if not test: return "None were stored with this model. Measure it before anyone relies on it."
    test = {k: v for k, v in test.items() if v is not None} # what one class alone can't give
    span = {"recall": f"{test['recall_low']:.3f} to {test['recall_high']:.3f} (Wilson)"} if "recall_low" in test else {}
    lines = [f"| {words} | {test[k]:.3f} | {span.get(k, 'not stored')} |" for k, words in SHOWN.items() if k in test]
    return (f"{test.get('n')} test rows, {test.get('positives')} positive, one seed: an anecdote. Real rows only.\n\n"
            + head + "\n".join(lines))

def _inputs(card):
    about = [("image", f"one gray frontal film, squashed to {card['size']} x {card['size']} pixels")]
    if card["kind"] == "metadata": about = []
    stats = card.get("metadata", {}).get("stats", {})
    for k, v in stats.items():
        numeric = k in card["metadata"]["cont_names"]
        about.append((k, f"number, {v[0]:g} to {v[1]:g} in training" if numeric else f"one of {', '.join(v)}"))
    return _facts(about) + ("\n\nAny metadata may be missing." if stats else "")

def model_card(
    bundle:str|Path,     # of `save_bundle`
    study:str|Path=None, # folder of the study that the model is a cell of: its means and intervals are quoted
) -> str:                # markdown, with the hub's front matter
    "What a model is, what it was trained on, what it scored, what isn't known. ValueError for another study's folder."
    card = read_card(bundle)
    s, t = card["summary"].get("settings", {}), card["training"]
    arm = card["summary"].get("cell", {}).get("arm") or s.get("arm")
    data = hub.ModelCardData(license="other", license_name="see-below", library_name="cxr_fastai", language="en",
                             tags=["chest-radiograph", "image-classification", "class-imbalance", "fastai", "timm"])
    trained = _facts([
        ("arm", f"{arm_title(arm)} ({arm})" if arm else None), ("architecture", card.get("arch")),
        ("fusion of image and metadata", card.get("fusion")), ("initial weights", card["weights"]),
        ("epochs", s.get("epochs")), ("largest learning rate", s.get("lr")), ("batch", card["bs"]),
        ("seed", s.get("seed")), ("protocol", s.get("protocol")), ("precision", card["precision"]),
        ("scored at", s.get("epoch_rule") and f"the {s['epoch_rule']} epoch"),
        ("versions", ", ".join(f"{k} {v}" for k, v in card["versions"].items()))])
    cohort = _facts([("training rows", t.get("rows")), ("patients", t.get("patients")),
                     ("positive", t.get("positives")), ("of them synthetic", t.get("synthetic")),
                     ("valid rows", t.get("valid_rows"))])
    neg, pos = map(escape_markdown, card["classes"])
    films, names = card["kind"] != "metadata", list(card.get("metadata", {}).get("stats", {}))
    seen = " and ".join(["a chest radiograph"] * films + [", ".join(map(escape_markdown, names))] * bool(names))
    unlike = ("What doesn't look like a training film is flagged by `cxr_fastai.trained`, imperfectly."
              if films and card["typical"] else "")
    said = [DRAWN] * bool(t.get("drawn")) + [LEAKY] * bool(t.get("leaky") or s.get("protocol") == "paper")
    stands = ", ".join(map(escape_markdown, names)) if names else "What the film shows of age, sex, view or device"
    asked = (['image="film.png"'] if films else
             [f'{k}=...' if k.isidentifier() else f'**{{{k!r}: ...}}' for k in names])
    return f"---\n{data.to_yaml()}\n---\n\n" + dedent("""\
        # {pos} or {neg}, from {seen}

        **Not a medical device.** For research on class imbalance; not for diagnosis, triage or any care of patients.
        {said}
        ## Intended use

        Tells {pos} from {neg} in patients like those it was trained on, to compare methods and to be measured
        elsewhere.
        Above {threshold:g} it says {pos}. {unlike}

        ## Inputs

        {inputs}

        ## Cohort

        {cohort}

        Where the films come from, how they were labelled and who was left out is for the author to say here.

        ## Training

        {trained}

        ## Metrics

        {metrics}

        ## Limits

        - Nothing is known of other hospitals, devices, ages or findings than the training rows'.
        - Where labels were read from reports, they are wrong in places, and so are figures measured by them.
        - {stands} may stand for the illness: look at subgroups before believing a recall.
        - No interval covers the luck of the split.

        ## Licence

        {licence}

        ## Use

        ```python
        from cxr_fastai.trained.hub import from_hub
        learn = from_hub("OWNER/NAME")
        learn.predict({asked})
        ```
        """).format(pos=pos, neg=neg, seen=seen, unlike=unlike, stands=stands, asked=", ".join(asked),
                    said="".join(f"\n**{o}**\n" for o in said), threshold=card["threshold"], inputs=_inputs(card),
                    cohort=cohort or "Not stored.", trained=trained, metrics=_metrics(card, study),
                    licence=without_html(card["licence"]))

@contextmanager
def _told(repo_id):
    "The hub's errors as one sentence."
    try: yield
    except OfflineModeIsEnabled: raise ConnectionError("HF_HUB_OFFLINE is set: unset it to reach the hub.") from None
    except HfHubHTTPError as e:
        status = getattr(e.response, "status_code", "no")
        why = "log in (hf auth login) or give a token with access" if status in (401, 403) else \
              "check the name and that you may see it" if status == 404 else "try again"
        raise ConnectionError(f"The hub refused {repo_id} (status {status}): {why}.") from None
    except Exception as e: # of whichever package speaks http for huggingface_hub
        if not isinstance(e, LocalEntryNotFoundError) and type(e).__module__.split(".")[0] not in HTTP: raise
        raise ConnectionError(f"The hub can't be reached for {repo_id}: {one_line(e)}") from None

def push_to_hub(
    bundle:str|Path,     # of `save_bundle`
    repo_id:str,         # 'OWNER/NAME'; made where it is missing
    study:str|Path=None, # as of `model_card`
    private:bool=True,   # of a repository that is made
    token:str=None,      # None: that of `hf auth login`, or HF_TOKEN
    endpoint:str=None,   # of another hub than huggingface.co
) -> str:                # the commit's address
    """Load the bundle, to be sure that it is whole, and send it with its model card in one commit. ConnectionError
    where the hub can't be reached, or refuses."""
    learn, text = load_bundle(bundle, "cpu"), model_card(bundle, study).replace("OWNER/NAME", repo_id)
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
    "Fetch a bundle, these two files only, and load it. ConnectionError; BundleError for what is no bundle."
    kwargs = dict(revision=revision, token=token, endpoint=endpoint, cache_dir=folder)
    with _told(repo_id):
        try: files = [hub.hf_hub_download(repo_id, o, **kwargs) for o in FILES]
        except LocalEntryNotFoundError: raise
        except EntryNotFoundError:
            raise BundleError(f"{repo_id} is no bundle: it needs {' and '.join(FILES)}.") from None
    return load_bundle(Path(files[0]).parent)
