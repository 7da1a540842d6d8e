"""Wrong labels: what random errors do to an AUC, and which films to read again. No torch.

Where a share of each class is labelled as the other, whatever a model says of the film, an area keeps its order and
shrinks towards .5 by the difference of two shares: of true positives among what is labelled positive, and among what is
labelled negative (Menon et al. 2015, ICML, section 3). Test labels alone are meant: what wrong training labels cost is
in the AUC already. Errors on films that are hard to read, as real ones are, shrink it less."""
import numpy as np
import pandas as pd

from ..arms import arm_title, parse_arm
from ..core.extras import need
from .predictions import check_predictions, real_rows
from .tables import in_words

__all__ = ["FLIPPED", "films_to_reread", "label_noise", "noise_table"]

FLIPPED = .05, .1, .2 # shares of labels that are wrong
WRONG = {"both classes": (1, 1), "positives": (1, 0), "negatives": (0, 1)} # whose labels

def _kept(share, missed, made):
    """What is left of an area's distance from .5, where of true positives, `share` of all, `missed` are labelled
    negative, and of true negatives `made` are labelled positive."""
    positive = share*(1 - missed) + (1 - share)*made
    if not 0 < positive < 1: return np.nan
    return share*(1 - missed)/positive - share*missed/(1 - positive)

def _true_share(seen, missed, made):
    "The true share of positives behind the one that is seen; nan where flips couldn't have left it."
    share = (seen - made)/(1 - missed - made)
    return share if 0 < share < 1 else np.nan

def label_noise(
    scores:pd.DataFrame, # of `score_table`
) -> pd.DataFrame:       # a line a backbone, arm, class and share: `auc seen true`, each with `_low _high`
    """The AUC of each arm; `seen`, what would be seen of it if its test labels were right and that share of them, of
    the true ones of both classes or of one, were flipped at random; and `true`, what is behind it if that share is
    wrong now. nan: no model could have that AUC were so many labels wrong at random."""
    lines = []
    for o in scores[scores["metric"] == "rocauc"].itertuples():
        ends, share = np.array([o.mean, o.low, o.high]), o.positives/o.n
        for of, (ill, well) in WRONG.items():
            for flipped in FLIPPED:
                rates = flipped*ill, flipped*well
                seen = .5 + _kept(share, *rates)*(ends - .5)
                true = .5 + (ends - .5)/_kept(_true_share(share, *rates), *rates)
                true = np.r_[true[0], np.clip(true[1:], 0, 1)] if 0 <= true[0] <= 1 else np.full(3, np.nan)
                line = dict(backbone=o.backbone, arm=o.arm, wrong=of, flipped=flipped)
                for name, values in dict(auc=ends, seen=seen, true=true).items():
                    line |= dict(zip((name, f"{name}_low", f"{name}_high"), values))
                lines.append(line)
    return pd.DataFrame(lines)

def noise_table(
    noise:pd.DataFrame, # of `label_noise`
) -> pd.DataFrame:      # a line a backbone, arm and class
    "The same in words: AUC, what would be seen, and what is behind it, with the interval of these models."
    lines = []
    for (backbone, arm, wrong), own in noise.groupby(["backbone", "arm", "wrong"], sort=False):
        first = own.iloc[0]
        line = dict(backbone=backbone, arm=arm_title(arm), wrong=wrong)
        line |= dict(AUC=in_words(first["auc"], first["auc_low"], first["auc_high"]))
        for name, head in dict(seen="seen at {:.0%}", true="true if {:.0%}").items():
            for o in own.to_dict("records"):
                line[head.format(o["flipped"])] = in_words(*(o[k] for k in (name, f"{name}_low", f"{name}_high")))
        lines.append(line)
    return pd.DataFrame(lines)

def films_to_reread(
    predictions:pd.DataFrame, # a study's
) -> pd.DataFrame:            # `image patient_id side label probability quality note`, the most doubtful first
    """Valid and test films whose label is doubtful, by confident learning (Northcutt et al. 2021,
    doi:10.1613/jair.1.12125; cleanlab, extra `labels`): `probability` is the mean of all models that see films, none of
    which was fitted on these rows; `quality` how far it agrees with the label, 0 to 1. To be read again, not wrong for
    that: a model that takes a shortcut doubts the labels of films that lack it. ImportError without the extra;
    ValueError for one class."""
    find = need("cleanlab.filter", extra="labels", what="A list of films to read again").find_label_issues
    table = check_predictions(predictions)
    table = pd.concat([real_rows(table, o) for o in ("valid", "test")])
    sees = table["arm"].map({o: parse_arm(o).use != "metadata" for o in table["arm"].unique()})
    table = table[sees] if sees.any() else table
    films = table.assign(called=table["probability"] > .5).groupby("image", sort=True).agg(
        patient_id=("patient_id", "first"), side=("side", "min"), label=("label", "first"),
        probability=("probability", "mean"), called=("called", "sum"), models=("called", "size")).reset_index()
    if films["label"].nunique() < 2: raise ValueError("predictions: valid and test rows are of one class, or none.")
    label, prob = films["label"].to_numpy(), films["probability"].to_numpy()
    worst = find(label, np.c_[1 - prob, prob], return_indices_ranked_by="self_confidence", n_jobs=1)
    films = films.assign(quality=np.where(label == 1, prob, 1 - prob)).iloc[worst]
    words = np.where(films["label"] == 1, "positive", "negative")
    note = [f"labelled {word}; {o.called} of {o.models} models call it positive at .5"
            for word, o in zip(words, films.itertuples())]
    return films.drop(columns=["called", "models"]).assign(note=note).reset_index(drop=True)
