"""What stands before a model card: the hub's metadata, by which a model is found and its figures are read. And the
card's warnings and limits as text, for whoever loads a bundle."""
import re
from math import isnan
from pathlib import Path

import huggingface_hub as hub

from ..core.templates import fill_template
from ..stats.formats import escape_markdown
from ..stats.scoring import METRICS

__all__ = ["front_matter", "hub_ids", "limits_of"]

ON_HUB = dict(recall="recall", specificity="specificity", precision="precision", rocauc="roc_auc",
              pr_auc="average_precision", brier="brier_score") # our metrics -> the hub's names
TASKS = dict(image="image-classification", metadata="tabular-classification", fusion="image-classification")
LICENCES = "apache-2.0 mit bsd-3-clause cc0-1.0 cc-by-4.0 cc-by-sa-4.0 cc-by-nc-4.0 cc-by-nc-sa-4.0".split()
ID = r"[A-Za-z0-9][\w.-]*/[\w.-]+" # of a repository
FROM = rf"imagenet \(({ID})\)", rf"hf-hub:({ID}?)(?:@\w+)?(?: \(.*\))?" # what a bundle says of weights from a hub
PAGE = "https://huggingface.co/OWNER/NAME#licence"
_TEMPLATES = Path(__file__).parent/"templates"

def hub_ids(
    datasets:list, # as a caller gave them: a list, or one
) -> list:         # of 'OWNER/NAME'
    "Ids of data sets on the hub. ValueError for what is none."
    given = [datasets] if isinstance(datasets, str) else list(datasets)
    for o in given:
        if not isinstance(o, str) or not re.fullmatch(ID, o):
            raise ValueError(f"datasets has {o!r}, which is no id of the hub's: write 'OWNER/NAME'.")
    return given

def _base(card):
    "Id of the model that it began with; None where that is of no hub."
    found = [re.fullmatch(o, card["weights"]) for o in FROM]
    return next((o[1] for o in found if o), None)

def _licence(words):
    "A licence that the hub knows by its id, or its link: the one in its words, or their place in the card."
    if (known := words.strip().lower()) in LICENCES: return dict(license=known)
    link = re.search(r"https?://[^\s<>\"')\]]+", words)
    return dict(license="other", license_name="see-below", license_link=link[0].rstrip(".,;") if link else PAGE)

def _result(card, name, value, datasets):
    "One figure, as the hub's leaderboards and its page of the model read it."
    drawn = "drawn films, none a patient's" if card["training"].get("drawn") else "test rows of its training table"
    kind, said = (datasets[0],)*2 if datasets else ("not-on-the-hub", drawn)
    return hub.EvalResult(
        task_type=TASKS[card["kind"]], dataset_type=kind, dataset_name=said, dataset_split="test",
        metric_type=ON_HUB[name], metric_name=METRICS[name].words, metric_value=round(float(value), 4))

def front_matter(
    card:dict,     # of `read_card`
    measured:dict, # metric -> value, on test rows
    datasets:list=(), # ids of the hub's sets that it was trained on
) -> str:          # yaml, which `huggingface_hub.ModelCard` reads
    "A model card's metadata. What isn't known isn't there."
    known = {k: measured[k] for k in ON_HUB if measured.get(k) is not None and not isnan(measured[k])}
    results = [_result(card, k, o, datasets) for k, o in known.items()]
    tags = ["chest-radiograph", TASKS[card["kind"]], "class-imbalance", "fastai"]
    return hub.ModelCardData(
        **_licence(card["licence"]), library_name="cxr_fastai", language="en", pipeline_tag=TASKS[card["kind"]],
        tags=tags + ["timm"] * (card["kind"] != "metadata"), base_model=_base(card), datasets=list(datasets) or None,
        metrics=[ON_HUB[o] for o in known] or None, eval_results=results or None,
        model_name="OWNER/NAME" if results else None).to_yaml()

def limits_of(
    card:dict, # of `read_card`
) -> tuple:    # markdown, twice
    "A bundle's warnings, above whatever it says, and its limits, a line each, as its model card has them."
    training, settings = card["training"], card["summary"].get("settings", {})
    words = dict(drawn=training.get("drawn"), leaky=training.get("leaky") or settings.get("protocol") == "paper",
                 columns=escape_markdown(", ".join(card.get("metadata", {}).get("stats", {}))))
    return tuple(fill_template(_TEMPLATES/f"{o}.md.j2", **words).strip() for o in ("cautions", "limits"))
