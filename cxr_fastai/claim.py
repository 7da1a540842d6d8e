"""What reporting guidelines ask of a study, and what its files can answer: CLAIM 2024 (Tejani et al., Radiology:
Artificial Intelligence 6(4):e240300, doi:10.1148/ryai.240300) and TRIPOD+AI (Collins et al., BMJ 2024;385:e078378,
doi:10.1136/bmj-2023-078378).

The items are told in our own words; their authors' wording is in the papers. An answer says what was done, never that
an item is met: that is for the author to judge."""
from types import SimpleNamespace
import pandas as pd

__all__ = ["CLAIM", "TRIPOD_AI", "characteristics", "checklist"]

SIDES = "train", "valid", "test"

def _positives(rows): return rows["label"] == rows["label"].cat.categories[1]

def characteristics(
    rows:pd.DataFrame,             # after the split; `label` is categorical, negative first
    names=("sex", "view", "age"),  # metadata columns
) -> pd.DataFrame:                 # a line a characteristic, columns `all train valid test`
    "Who is on which side (CLAIM's item 36): counts and shares of words, median and quartiles of numbers."
    sides = [rows] + [rows[rows["split"] == o] for o in SIDES]
    share = lambda hit: f"{hit.sum():,} ({hit.mean():.0%})" if len(hit) else "0"
    lines = {"images": [f"{len(o):,}" for o in sides], "patients": [f"{o['patient_id'].nunique():,}" for o in sides],
             rows["label"].cat.categories[1]: [share(_positives(o)) for o in sides]}
    for name in (o for o in names if o in rows):
        if pd.api.types.is_numeric_dtype(rows[name]):
            quartiles = [o[name].quantile([.5, .25, .75]) for o in sides]
            lines[f"{name}, median [quartiles]"] = ["{:.0f} [{:.0f}, {:.0f}]".format(*o) for o in quartiles]
        else:
            words = sorted(rows[name].dropna().unique())
            lines |= {f"{name} {word}": [share(o[name] == word) for o in sides] for word in words}
        if rows[name].isna().any(): lines[f"{name} missing"] = [share(o[name].isna()) for o in sides]
    return pd.DataFrame([[k, *o] for k, o in lines.items()], columns=["of", "all", *SIDES])

def _source(s, t):
    if s["data"].split(" ")[0] == "phantom": return "No patients: films that the toolkit drew."
    return f"Read from {s['data']}; what it is, and how it was collected, is for the author to say."

def _design(s, t): return "Retrospective: only radiographs that were there before are read."

def _aim(s, t):
    if not {"real-meta", "real-synth-meta"} <= set(s["arms"]): return
    return ("The primary comparison is fixed before any run: with synthetic minority films (Ensemble) against without "
            "(Real-Meta), by the difference of their AUC on the test rows (DeLong, two-sided, 5%).")

def _eligible(s, t):
    return "; ".join(f"{o.step}: {o.rows:,} rows" for o in t.flow.itertuples() if o.step not in SIDES) + "."

def _prepared(s, t):
    return (f"Films: one 8-bit gray channel, {s['size']} x {s['size']} pixels, normalised as the backbone expects; in "
            "training, small rotation, zoom and lighting, no flip. Metadata: one-hot, or 0 to 1 by the training rows.")

def _missing(s, t):
    names = [*s.get("cat_names", ()), *s.get("cont_names", ())]
    gaps = [f"{o} in {t.rows[o].isna().sum():,}" for o in names if o in t.rows]
    return f"Missing among {len(t.rows):,} rows: {', '.join(gaps)}. Nothing is imputed: 'missing' is encoded as such."

def _assigned(s, t):
    sizes = ", ".join(f"{o} {(t.rows['split'] == o).sum():,}" for o in SIDES)
    how = ("by patient, stratified by label, before anything else; no model and no CycleGAN is fitted on a test row"
           if s["protocol"] == "clean" else "by image, synthetic ones too, after a CycleGAN that saw all")
    return f"At random {how} (seed {s.get('split_seed', 0)}): {sizes}."

def _disjoint(s, t):
    twice, n = (t.rows.groupby("patient_id")["split"].nunique() > 1).sum(), t.rows["patient_id"].nunique()
    if twice: return f"Not by patient: {twice:,} of {n:,} are on several sides."
    return f"By patient: none of {n:,} is on two sides, as counted in rows.csv."

def _counts(s, t):
    parts = {o: t.rows[t.rows["split"] == o] for o in SIDES}
    return "; ".join(f"{k}: {len(o):,} rows, {_positives(o).sum():,} positive" for k, o in parts.items()) + "."

def _size(s, t): return f"{_counts(s, t)} No size was calculated; the intervals show what this one allows."

def _model(s, t):
    merged = s.get("fusion", "concat")
    return (f"{', '.join(s['backbones'])} of timm on one gray channel; a perceptron on the metadata; both merged by "
            f"'{merged}' where an arm doesn't say otherwise. Synthetic films: CycleGAN ('{s['gan']}').")

def _software(s, t): return ", ".join(f"{k} {v}" for k, v in s["versions"].items()) + "."

def _initial(s, t):
    weights = ", ".join(map(str, t.cells["weights"].dropna().unique()))
    return f"Weights of the backbones: {weights}; all else at random from seeds {', '.join(map(str, s['seeds']))}."

def _training(s, t):
    return (f"{s['epochs']} epochs in batches of {s['bs']}, one-cycle schedule, base rate {s['lr']:g}, AdamW; "
            f"{len(t.cells)} models, alike but for what an arm's name says. What was tried before is for the author.")

def _selected(s, t): return "The last epoch." if s["epoch_rule"] == "last" else "The best epoch by the valid rows' AUC."

def _ensembling(s, t): return "None: 'Ensemble' is the paper's name of an arm, and each model predicts alone."

def _metrics(s, t):
    return ("Recall at .5, the paper's; specificity, precision, accuracy, F1, ROC-AUC, PR-AUC, Brier score, slope; "
            "sensitivity at thresholds fixed on the valid rows; ROC, precision-recall and calibration curves.")

def _statistics(s, t):
    return ("95% intervals by a bootstrap over patients; mean and deviation over seeds; arms in pairs on the same rows "
            "by bootstrap, DeLong's and McNemar's tests, with Holm's correction over the table.")

def _robust(s, t):
    more = [o for o in s["arms"] if "+" in o]
    return f"Seeds: {len(s['seeds'])}; backbones: {len(s['backbones'])}; variants: {', '.join(more) or 'none'}."

def _imbalance(s, t):
    kinds = sorted({word for o in s["arms"] for word in o.split("+")[1:] if not word[0].isdigit()})
    synth = ", ".join(o for o in s["arms"] if "synth" in o)
    return (f"{_positives(t.rows).mean():.0%} positive. Synthetic minority films: {synth or 'no arm'}; variants: "
            f"{', '.join(kinds) or 'none'}. Also shown with logits corrected for the shift of the prior.")

def _output(s, t):
    return f"A probability of {s['positive']}; called so above .5, as the paper, and at thresholds from the valid rows."

def _where(text): return lambda s, t: text

_internal, _cohort = _where("On a held-out part of the same data."), _where("Section 'Cohort'.")
_scores = _where("Sections 'Table 1', 'Comparisons' and 'All metrics', with intervals.")
_failures = _where("Sections 'Confusion matrices' and 'Subgroups' count them; looking at the films is the author's.")
_details = _where("Section 'Settings and versions', and settings.json.")
_groups = _where("Section 'Subgroups', beside metadata alone; nothing is done to even groups out.")
_updating = _where("The prior-shift correction alone, shown beside what is predicted.")
_same = _where("None by design: one data set, split at random. Section 'Cohort' shows the sides.")

CLAIM = ( # number, what it asks, who answers
    ("1", "AI, and which kind, named in the title or abstract", None),
    ("2", "abstract with design, methods, results, conclusions", None),
    ("3", "background; what the model is to be used for", None),
    ("4", "aims and hypotheses", _aim),
    ("5", "looking back or forward in time", _design),
    ("6", "goal of the study", None),
    ("7", "where the data come from", _source),
    ("8", "who was included and who was not", _eligible),
    ("9", "how data were prepared", _prepared),
    ("10", "how parts of the data were chosen", _eligible),
    ("11", "how data were made anonymous", None),
    ("12", "what was done about missing data", _missing),
    ("13", "how films were taken", None),
    ("14", "what the reference standard is", None),
    ("15", "why that one", None),
    ("16", "who labelled, and their training", None),
    ("17", "how the test set was labelled", None),
    ("18", "agreement within and between readers", None),
    ("19", "how rows were assigned to sides", _assigned),
    ("20", "at which level sides are apart", _disjoint),
    ("21", "intended size of the test set", _size),
    ("22", "the model in detail", _model),
    ("23", "software with versions", _software),
    ("24", "weights at the start", _initial),
    ("25", "how models were trained", _training),
    ("26", "how the final model was chosen", _selected),
    ("27", "ensembles of models", _ensembling),
    ("28", "measures of performance", _metrics),
    ("29", "tests and uncertainty", _statistics),
    ("30", "robustness and sensitivity", _robust),
    ("31", "explaining the predictions", None),
    ("32", "evaluation on data of the same source", _internal),
    ("33", "testing on data from elsewhere", None),
    ("34", "registration as a trial", None),
    ("35", "numbers included and excluded", _cohort),
    ("36", "who is on each side", _cohort),
    ("37", "performance with its uncertainty", _scores),
    ("38", "diagnostic performance and its precision", _scores),
    ("39", "what was classified wrongly", _failures),
    ("40", "limitations", None),
    ("41", "what it means for practice", None),
    ("42", "protocol and technical details", _details),
    ("43", "whether software, models and data can be had", None),
    ("44", "funding and the funders' part", None))

TRIPOD_AI = (
    ("1", "title: a prediction model, for whom and for what", None),
    ("2", "abstract by its own list", None),
    ("3a", "medical context, and models there are", None),
    ("3b", "target population, purpose and users", None),
    ("3c", "known inequalities between groups", None),
    ("4", "objectives: development, evaluation or both", _aim),
    ("5a", "where data come from, and whom they stand for", _source),
    ("5b", "dates of the data", None),
    ("6a", "setting and number of centres", None),
    ("6b", "who could take part", _eligible),
    ("6c", "treatments", None),
    ("7", "how data were prepared and checked", _prepared),
    ("8a", "the outcome and how it was assessed", None),
    ("8b", "who assessed it, where judgement was needed", None),
    ("8c", "blinding of that assessment", None),
    ("9a", "why these predictors", None),
    ("9b", "the predictors and how they were measured", None),
    ("9c", "who measured them, where judgement was needed", None),
    ("10", "how the size of the study came about", _size),
    ("11", "missing data", _missing),
    ("12a", "how data were divided and used", _assigned),
    ("12b", "how predictors were handled", _prepared),
    ("12c", "the kind of model, its building, internal validation", _model),
    ("12d", "differences between clusters, such as hospitals", None),
    ("12e", "measures and plots of performance", _metrics),
    ("12f", "updating of the model", _updating),
    ("12g", "how predictions were computed", _output),
    ("13", "class imbalance: what was done, and recalibration", _imbalance),
    ("14", "fairness: what was done", _groups),
    ("15", "what the model gives, and thresholds", _output),
    ("16", "how development and evaluation data differ", _same),
    ("17", "ethics approval and consent", None),
    ("18a", "funding", None),
    ("18b", "conflicts of interest", None),
    ("18c", "where the protocol is", None),
    ("18d", "registration", None),
    ("18e", "whether data can be had", None),
    ("18f", "whether code can be had", None),
    ("19", "patients and public involved", None),
    ("20a", "flow of participants", _cohort),
    ("20b", "their characteristics", _cohort),
    ("20c", "development and evaluation rows compared", _cohort),
    ("21", "participants and events in each analysis", _counts),
    ("22", "the full model, so that others can use it", None),
    ("23a", "performance with intervals, in groups too", _scores),
    ("23b", "differences of performance between clusters", None),
    ("24", "results of updating", _updating),
    ("25", "interpretation, fairness included", None),
    ("26", "limitations", None),
    ("27a", "poor or missing input in use", None),
    ("27b", "what users must do and know", None),
    ("27c", "next steps", None))

def checklist(
    settings:dict,     # of a study's settings.json
    rows:pd.DataFrame, # of its rows.csv
    flow:pd.DataFrame, # of its flow.csv
    cells:pd.DataFrame,# of its cells.csv
) -> pd.DataFrame:     # a line an item, `checklist item asks answer`; where nothing answers, the author is asked to
    "What the files of a study can say to each item of `CLAIM` and `TRIPOD_AI`."
    tables = SimpleNamespace(rows=rows, flow=flow, cells=cells)
    lines = [(name, number, asks, answer and answer(settings, tables)) for name, items in
             (("CLAIM 2024", CLAIM), ("TRIPOD+AI", TRIPOD_AI)) for number, asks, answer in items]
    table = pd.DataFrame(lines, columns=["checklist", "item", "asks", "answer"])
    return table.assign(answer=table["answer"].fillna("the author's to fill"))
