"""What a study's files can answer to a reporting checklist: an answer a function of its settings `s` and tables `t`.

An answer says what was done, as far as settings and tables tell; where they don't, there is none (None), and the item
is its author's. No torch."""
import pandas as pd
from scipy.stats import fisher_exact

from ..arms import arm_title, parse_arm

__all__ = ["drawn_note", "leaky_note", "shortcut_note", "split_note"]

SIDES = "train", "valid", "test"
KNOWN = "auto", "imagenet", "none" # weights of which it is known what they were fitted on

# What was run

def uses(s, what): return any(parse_arm(o).use in (what, "both") for o in s["arms"])
def has_synth(s): return any(parse_arm(o).synth for o in s["arms"])
def _rivals(s): return {parse_arm(o).rival for o in s["arms"]} - {None}
def _names(s): return [*s.get("cat_names", ()), *s.get("cont_names", ())]
def positives(rows): return rows["label"] == rows["label"].cat.categories[1]
def _listed(words): return ", ".join(map(str, words))
def _counted(n, word): return f"{n:,} {word}" + "s" * (n != 1)

def is_drawn_study(s): return s["drawn"] if "drawn" in s else s["data"].split(" ")[0] == "phantom" # of before

def drawn_note(
    s:dict, # settings of a study
) -> str:   # '' for real films
    "What stands by every score of drawn films."
    return "These films are drawn: the absolute scores of this study say nothing about pneumonia." * is_drawn_study(s)

def leaky_note(
    s:dict,            # settings of a study
    rows:pd.DataFrame, # as they were split
) -> str:              # '' by the protocol 'clean'
    "What is wrong on purpose with a study by the protocol 'paper', as far as it is so in these rows."
    if s["protocol"] != "paper": return ""
    twice, n = (rows.groupby("patient_id")["split"].nunique() > 1).sum(), rows["patient_id"].nunique()
    found = [f"{twice:,} of {n:,} patients are on several sides of its split"] * bool(twice)
    found += ["its CycleGAN saw every row, and synthetic films are on every side"] * has_synth(s)
    if not found: return ("Protocol 'paper' splits by image and allows leaks: in these rows no patient is on two "
                          "sides, and no arm has synthetic films.")
    return (f"Protocol 'paper' is leaky on purpose: {'; '.join(found)}, as the paper's figures imply, so that its "
            "scores flatter.")

def split_note(
    s:dict, # a study's settings
):
    "How rows came to their sides; None where it isn't known."
    how = s.get("split")
    if how is None: return
    if not how: return "The table came with its split; how that was made is for the author to say"
    what = f"At random {how['method']}" + ", stratified by label" * bool(how.get("stratified"))
    share = f"{how['test']:.0%} to test" if "test" in how else f"fold {how['fold']} of {how['folds']} to test"
    rest = "of all" if how["method"] == "by image" else "of the rest"
    return f"{what}, {share} and {how['valid']:.0%} {rest} to valid (seed {how['seed']})"

def _share(rows): return f"{positives(rows).sum():,} of {len(rows):,}"

def shortcut_note(
    s:dict,            # settings of a study
    rows:pd.DataFrame, # as they were split
) -> str:
    """What subgroups are there for, with the pair of groups whose shares of positives among the test rows are furthest
    apart, where that is beyond chance (Fisher's exact test, 5% over all pairs)."""
    test, found = rows[rows["split"] == "test"], []
    for name in (o for o in _names(s) if o in test and not pd.api.types.is_numeric_dtype(test[o])):
        words = sorted(test[name].dropna().unique())
        for a, b in ((a, b) for i, a in enumerate(words) for b in words[i + 1:]):
            parts = sorted((test[test[name] == o] for o in (a, b)), key=lambda o: -positives(o).mean())
            table = [[positives(o).sum(), (~positives(o)).sum()] for o in parts]
            found.append((fisher_exact(table).pvalue, name, *parts))
    said = "An arm that takes a group for the illness calls more of its negatives positive, too."
    if found and min(o[0] for o in found) * len(found) < .05:
        _, name, more, less = min(found, key=lambda o: o[0])
        said += (f" Here {s['positive']} is commoner where {name} is {more[name].iloc[0]} ({_share(more)} test rows) "
                 f"than where it is {less[name].iloc[0]} ({_share(less)}).")
    return said + " Meta, which sees no film, shows how far such a shortcut goes." * ("meta" in s["arms"])

def unknown_weights(s):
    "Backbones whose weights are a file's, of which nobody here knows what it was fitted on."
    return [arch for arch, o in s.get("weights_of", {}).items() if o not in KNOWN] if uses(s, "image") else []

# Answers

def source(s, t):
    if is_drawn_study(s): return "No patients: films that the toolkit drew."
    return f"Read from {s['data'] or 'a table'}; what it is, and how it was collected, is for the author to say."

def aim(s, t):
    if not t.plan: return
    if not t.plan.get("primary"): return "No primary comparison was planned."
    before, after = map(arm_title, t.plan["primary"])
    return (f"The primary comparison, as plan.json had it at {t.plan['time']}: {before} against {after}, by the "
            f"difference of their AUC on the test rows, two-sided {t.plan['alpha']:.0%} over the backbones.")

def eligible(s, t):
    return "; ".join(f"{o.step}: {o.rows:,} rows" for o in t.flow.itertuples() if o.step not in SIDES) + "."

def prepared(s, t):
    said = []
    if uses(s, "image"):
        more = " (twice that and some warp in the arms '+augment')" * ("augment" in _rivals(s))
        said.append(f"Films: one 8-bit gray channel, {s['size']} x {s['size']} pixels, normalised as the backbone "
                    f"expects; in training, small rotation, zoom and lighting{more}, no flip.")
    if uses(s, "metadata"): said.append("Metadata: words one-hot, numbers to 0 to 1 by the training rows.")
    return " ".join(said)

def _masked(s):
    "How metadata is masked in training."
    share = s.get("training", {}).get("meta_dropout")
    said, arms = "", [parse_arm(o) for o in s["arms"]]
    if share: said += (f" In training {share:.0%} of the values are masked as missing, and where films are read, as "
                       "many patients.")
    if "missing" in {o.policy or s.get("metadata") for o in arms if o.synth and o.use == "both"}:
        said += " Synthetic rows of the policy 'missing' have none; real rows of the other label are masked as often."
    return said

def missing(s, t):
    if not uses(s, "metadata"): return "No arm reads metadata."
    gaps = [f"{o} in {t.rows[o].isna().sum():,}" for o in _names(s) if o in t.rows]
    return (f"Missing among {len(t.rows):,} rows: {', '.join(gaps)}. Nothing is imputed: 'missing' is encoded as such."
            + _masked(s))

def _fitted(s):
    "What was fitted on which rows, as far as that is known."
    if s["protocol"] == "paper":
        return "; the CycleGAN saw every row, and synthetic films were split among all sides" * has_synth(s)
    models = "no classifier here" + " and no CycleGAN" * has_synth(s)
    if not (names := unknown_weights(s)): return f"; {models} is fitted on a test row"
    return (f"; {models} is fitted on a test row (what the weights that {_listed(names)} began with were fitted on "
            "isn't known)")

def assigned(s, t):
    how = split_note(s)
    if how is None: return
    return f"{how}{_fitted(s)}: " + ", ".join(f"{o} {(t.rows['split'] == o).sum():,}" for o in SIDES) + "."

def disjoint(s, t):
    twice, n = (t.rows.groupby("patient_id")["split"].nunique() > 1).sum(), t.rows["patient_id"].nunique()
    if twice: return f"Not by patient: {twice:,} of {n:,} are on several sides."
    return f"By patient: none of {n:,} is on two sides, as counted in rows.csv."

def counts(s, t):
    parts = {o: t.rows[t.rows["split"] == o] for o in SIDES}
    return "; ".join(f"{k}: {len(o):,} rows, {positives(o).sum():,} positive" for k, o in parts.items()) + "."

def size(s, t):
    return f"{counts(s, t)} Whether a size was calculated is for the author; the intervals show what this one allows."

def model(s, t):
    arms = [parse_arm(o) for o in s["arms"]]
    said = [f"{_listed(s['backbones'])} of timm on one gray channel"] * uses(s, "image")
    said += ["a perceptron on the metadata"] * uses(s, "metadata")
    merged = dict.fromkeys(o.fusion or s.get("fusion", "concat") for o in arms if o.use == "both")
    if merged: said.append(f"both trained jointly and merged by {_listed(map(repr, merged))}")
    if has_synth(s): said.append(f"synthetic films by a CycleGAN ('{s['gan']}')")
    return "; ".join(said) + "."

def software(s, t): return ", ".join(f"{k} {v}" for k, v in s["versions"].items()) + "."

def initial(s, t):
    seeds = f"at random from {_listed(s['seeds'])}, the seed{'s' * (len(s['seeds']) > 1)}"
    if not uses(s, "image"): return f"All {seeds}."
    found = list(t.cells["weights"].dropna().unique())
    said = f"Weights of the backbones: {_listed(found) or 'no cell is finished'}; all else {seeds}."
    if names := unknown_weights(s): said += f" What the weights of {_listed(names)} were fitted on isn't known here."
    return said

def _frozen(s, t):
    n, began = s.get("training", {}).get("freeze_epochs"), t.cells["weights"].dropna()
    if not n or not uses(s, "image") or not began.ne("none").any(): return ""
    where = " where the body's weights are pretrained" * bool(began.eq("none").any())
    return f"after {_counted(n, 'epoch')} of the head alone with the body frozen{where}, "

def _gan(s):
    if not has_synth(s): return ""
    if not (o := s.get("gan_training")): return " How the CycleGAN was trained stands in its folder's settings.json."
    residual = ", which add to their input" * bool(o["residual"])
    return (f" CycleGAN: {_counted(o['epochs'], 'epoch')}, half at the rate {o['lr']:g} and half falling to 0, in "
            f"batches of {o['bs']} at {s['gan_size']} x {s['gan_size']} pixels; weight of the cycle loss {o['lam']:g}, "
            f"of the identity loss {o['identity']:g} times that; generators of {o['ngf']} first channels{residual}; "
            "one a seed.")

def training(s, t):
    done = int(t.cells["error"].isna().sum()) if "error" in t.cells else len(t.cells)
    drop = s.get("training", {}).get("ps")
    text = (f"{_frozen(s, t)}{_counted(s['epochs'], 'epoch')} in batches of {s['bs']}, one-cycle schedule, base rate "
            f"{s['lr']:g}, AdamW")
    if drop and uses(s, "image"): text += f", dropout {drop:g} before the output"
    masked = _masked(s) if uses(s, "metadata") else ""
    return (f"{text[0].upper()}{text[1:]}. {_counted(done, 'model')}, alike but for what an arm's name says.{masked}"
            f"{_gan(s)} What was tried before is for the author.")

def selected(s, t): return "The last epoch." if s["epoch_rule"] == "last" else "The best epoch by the valid rows' AUC."

def ensembling(s, t):
    named = any(parse_arm(o).base == "real-synth-meta" for o in s["arms"])
    return ("None: 'Ensemble' is the paper's name of an arm, and each model predicts alone." if named else
            "None: each model predicts alone.")

def metrics(s, t):
    return ("Recall at .5, the paper's; specificity, precision, accuracy, F1, ROC-AUC, PR-AUC, Brier score, "
            "calibration; sensitivity at thresholds fixed on the valid rows; ROC, precision-recall and calibration "
            "curves.")

def statistics(s, t):
    many = len(s["seeds"]) > 1
    seeds = "mean and deviation over seeds" if many else "one seed, so that no luck of training is covered"
    said = f"95% intervals of each arm over the test patients{', and over trainings, too' * many}; {seeds}"
    if len(s["arms"]) < 2: return f"{said}; no arms are compared."
    pairs = "DeLong's test of the AUC"
    if t.plan: pairs += f" and t tests of other figures, patients{' and seeds' * many} being drawn"
    if t.plan and t.plan["primary"]:
        pairs += "; the primary comparison with Holm's correction over the backbones, all else uncorrected"
    elif t.plan: pairs += "; none is corrected"
    return f"{said}; arms in pairs on the same rows by {pairs}."

def robust(s, t):
    more = [o for o in s["arms"] if "+" in o]
    return f"Seeds: {len(s['seeds'])}; backbones: {len(s['backbones'])}; variants: {', '.join(more) or 'none'}."

def imbalance(s, t):
    kinds = sorted({word for o in s["arms"] for word in o.split("+")[1:] if not word[0].isdigit()})
    synth = ", ".join(o for o in s["arms"] if parse_arm(o).synth)
    return (f"{positives(t.rows).mean():.0%} positive. Synthetic minority films: {synth or 'no arm'}; variants: "
            f"{', '.join(kinds) or 'none'}. Also shown with logits corrected for the shift of the prior.")

def output(s, t):
    return f"A probability of {s['positive']}; called so above .5, as the paper, and at thresholds from the valid rows."

def internal(s, t):
    if not s.get("split"): return
    return "On rows of the same table that were drawn at random."

def same(s, t):
    if not s.get("split"): return
    return "None by design: one table, split at random. Section 'Cohort' shows the sides."

def groups(s, t):
    beside = ", beside metadata alone" * ("meta" in s["arms"])
    return f"Section 'Subgroups'{beside}; nothing is done to even groups out."

def failures(s, t):
    return "Sections 'Confusion matrices' and 'Subgroups' count them; looking at the films is the author's."

def where(text): return lambda s, t: text

cohort = where("Section 'Cohort'.")
updating = where("The prior-shift correction alone, shown beside what is predicted.")
scored = where("Sections 'Table 1', 'Comparisons' and 'All metrics', with intervals.")
details = where("Section 'Settings and versions', and settings.json.")
