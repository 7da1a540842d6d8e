"""What reporting guidelines ask of a study, and what its files can answer: CLAIM 2024 (Tejani et al., Radiology:
Artificial Intelligence 6(4):e240300, doi:10.1148/ryai.240300) and TRIPOD+AI (Collins et al., BMJ 2024;385:e078378,
doi:10.1136/bmj-2023-078378).

The items are told in our own words; their authors' wording is in the papers. An answer says what was done, never that
an item is met: that is for the author to judge."""
from types import SimpleNamespace

import pandas as pd

from ..cohort.rows import classes, columns_of, positive
from ..cohort.sampling import sides_of
from . import answers

__all__ = ["CLAIM", "TRIPOD_AI", "characteristics", "checklist"]

def _share(hit): return f"{hit.sum():,} ({hit.mean():.0%})" if len(hit) else "0"

def _quartiles(numbers):
    low, median, high = numbers.quantile([.25, .5, .75])
    return f"{median:.0f} [{low:.0f}, {high:.0f}]"

def characteristics(
    rows:pd.DataFrame,             # after the split; `label` is categorical, negative first
    names=None,                    # metadata columns; those that the table remembers, where not given
) -> pd.DataFrame:                 # a line a characteristic, columns `all train valid test`, or a fold each
    "Who is on which side (CLAIM's item 36): counts and shares of words, median and quartiles of numbers."
    parts = sides_of(rows)
    sides = [rows, *parts.values()]
    lines = {"images": [f"{len(o):,}" for o in sides], "patients": [f"{o['patient_id'].nunique():,}" for o in sides],
             classes(rows)[1]: [_share(positive(o)) for o in sides]}
    names = sum(columns_of(rows).values(), []) if names is None else names
    for name in (o for o in names if o in rows):
        if pd.api.types.is_numeric_dtype(rows[name]):
            lines[f"{name}, median [quartiles]"] = [_quartiles(o[name]) for o in sides]
        else:
            words = sorted(rows[name].dropna().unique())
            lines |= {f"{name} {word}": [_share(o[name] == word) for o in sides] for word in words}
        if rows[name].isna().any(): lines[f"{name} missing"] = [_share(o[name].isna()) for o in sides]
    return pd.DataFrame([[of, *words] for of, words in lines.items()], columns=["of", "all", *parts])

CLAIM = ( # number, what it asks, who answers
    ("1", "AI, and which kind, named in the title or abstract", None),
    ("2", "abstract with design, methods, results, conclusions", None),
    ("3", "background; what the model is to be used for", None),
    ("4", "aims and hypotheses", answers.aim),
    ("5", "looking back or forward in time", None),
    ("6", "goal of the study", None),
    ("7", "where the data come from", answers.source),
    ("8", "who was included and who was not", answers.eligible),
    ("9", "how data were prepared", answers.prepared),
    ("10", "how parts of the data were chosen", answers.eligible),
    ("11", "how data were made anonymous", None),
    ("12", "what was done about missing data", answers.missing),
    ("13", "how films were taken", None),
    ("14", "what the reference standard is", None),
    ("15", "why that one", None),
    ("16", "who labelled, and their training", None),
    ("17", "how the test set was labelled", None),
    ("18", "agreement within and between readers", None),
    ("19", "how rows were assigned to sides", answers.assigned),
    ("20", "at which level sides are apart", answers.disjoint),
    ("21", "intended size of the test set", answers.size),
    ("22", "the model in detail", answers.model),
    ("23", "software with versions", answers.software),
    ("24", "weights at the start", answers.initial),
    ("25", "how models were trained", answers.training),
    ("26", "how the final model was chosen", answers.selected),
    ("27", "ensembles of models", answers.ensembling),
    ("28", "measures of performance", answers.metrics),
    ("29", "tests and uncertainty", answers.statistics),
    ("30", "robustness and sensitivity", answers.robust),
    ("31", "explaining the predictions", None),
    ("32", "evaluation on data of the same source", answers.internal),
    ("33", "testing on data from elsewhere", None),
    ("34", "registration as a trial", None),
    ("35", "numbers included and excluded", answers.cohort),
    ("36", "who is on each side", answers.cohort),
    ("37", "performance with its uncertainty", answers.scored),
    ("38", "diagnostic performance and its precision", answers.scored),
    ("39", "what was classified wrongly", answers.failures),
    ("40", "limitations", None),
    ("41", "what it means for practice", None),
    ("42", "protocol and technical details", answers.details),
    ("43", "whether software, models and data can be had", None),
    ("44", "funding and the funders' part", None))

TRIPOD_AI = (
    ("1", "title: a prediction model, for whom and for what", None),
    ("2", "abstract by its own list", None),
    ("3a", "medical context, and models there are", None),
    ("3b", "target population, purpose and users", None),
    ("3c", "known inequalities between groups", None),
    ("4", "objectives: development, evaluation or both", answers.aim),
    ("5a", "where data come from, and whom they stand for", answers.source),
    ("5b", "dates of the data", None),
    ("6a", "setting and number of centres", None),
    ("6b", "who could take part", answers.eligible),
    ("6c", "treatments", None),
    ("7", "how data were prepared and checked", answers.prepared),
    ("8a", "the outcome and how it was assessed", None),
    ("8b", "who assessed it, where judgement was needed", None),
    ("8c", "blinding of that assessment", None),
    ("9a", "why these predictors", None),
    ("9b", "the predictors and how they were measured", None),
    ("9c", "who measured them, where judgement was needed", None),
    ("10", "how the size of the study came about", answers.size),
    ("11", "missing data", answers.missing),
    ("12a", "how data were divided and used", answers.assigned),
    ("12b", "how predictors were handled", answers.prepared),
    ("12c", "the kind of model, its building, internal validation", answers.model),
    ("12d", "differences between clusters, such as hospitals", None),
    ("12e", "measures and plots of performance", answers.metrics),
    ("12f", "updating of the model", answers.updating),
    ("12g", "how predictions were computed", answers.output),
    ("13", "class imbalance: what was done, and recalibration", answers.imbalance),
    ("14", "fairness: what was done", answers.groups),
    ("15", "what the model gives, and thresholds", answers.output),
    ("16", "how development and evaluation data differ", answers.same),
    ("17", "ethics approval and consent", None),
    ("18a", "funding", None),
    ("18b", "conflicts of interest", None),
    ("18c", "where the protocol is", None),
    ("18d", "registration", None),
    ("18e", "whether data can be had", None),
    ("18f", "whether code can be had", None),
    ("19", "patients and public involved", None),
    ("20a", "flow of participants", answers.cohort),
    ("20b", "their characteristics", answers.cohort),
    ("20c", "development and evaluation rows compared", answers.cohort),
    ("21", "participants and events in each analysis", answers.counts),
    ("22", "the full model, so that others can use it", None),
    ("23a", "performance with intervals, in groups too", answers.scored),
    ("23b", "differences of performance between clusters", None),
    ("24", "results of updating", answers.updating),
    ("25", "interpretation, fairness included", None),
    ("26", "limitations", None),
    ("27a", "poor or missing input in use", None),
    ("27b", "what users must do and know", None),
    ("27c", "next steps", None))

def _answered(answer, settings, tables):
    said = answer(settings, tables) if answer else None
    return "the author's to fill" if said is None else said

def checklist(
    settings:dict,     # of a study's settings.json
    rows:pd.DataFrame, # of its rows.csv
    flow:pd.DataFrame, # of its flow.csv
    cells:pd.DataFrame,# of its cells.csv
    plan:dict=None,    # of its plan.json
) -> pd.DataFrame:     # a line an item, `checklist item asks answer`; where nothing answers, the author is asked to
    "What the files of a study can say to each item of `CLAIM` and `TRIPOD_AI`."
    tables = SimpleNamespace(rows=rows, flow=flow, cells=cells, plan=plan)
    lines = [(name, number, asks, _answered(answer, settings, tables))
             for name, items in {"CLAIM 2024": CLAIM, "TRIPOD+AI": TRIPOD_AI}.items() for number, asks, answer in items]
    return pd.DataFrame(lines, columns=["checklist", "item", "asks", "answer"])
