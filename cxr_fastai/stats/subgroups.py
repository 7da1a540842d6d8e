"""Who fares how: each group of patients beside the rest, and whether the gain of an arm is another there. No torch.

All figures are linear in patients, to first order: what a patient adds to a mean over seeds gives its variance, films
of one patient together, so that a difference is tested on the patients whom it is of. Seeds join as in
`areas.delong`."""
import numpy as np
import pandas as pd
from scipy.stats import t as student

from ..arms import arm_title, comparisons_of
from ..cohort.rows import columns_of, positive
from ..cohort.sampling import test_rows
from ..core.files import few
from .areas import auc_interval
from .formats import number, with_ends
from .predictions import each_backbone, paired
from .scoring import METRICS, wilson
from .slopes import influence
from .tables import in_words

__all__ = ["MIN_PATIENTS", "group_scores", "group_words", "interactions", "small_groups", "subgroups"]

MIN_PATIENTS = 10 # of each class in a group and in the rest, below which a group has counts and no interval
FIGURES = "recall", "specificity", "rocauc"
BAND, CODES = 20, 10 # width of a group of numbers, such as ages; and how many may be left uncut

def group_words(
    rows:pd.DataFrame, # with `image` and the columns `names`
    images:pd.Series,  # names
    names:list=None,   # columns; the table's metadata where not given; those that `rows` lacks are left out
) -> pd.DataFrame:     # a line an image: words; numbers in bands of twenty, as '20-39'; 'missing'
    """Which group each image is in, by every column. Whole numbers that are ten different ones at most and lie within
    twenty of one another, such as the numbers of sites, aren't cut."""
    names = [o for o in (sum(columns_of(rows).values(), []) if names is None else names) if o in rows]
    about = rows.assign(image=rows["image"].astype(str)).drop_duplicates("image").set_index("image")[names]
    about = about.reindex(images)
    numbers = {o: _banded(rows[o], about[o]) for o in names if _is_number(rows[o])}
    return about.assign(**numbers).astype(object).fillna("missing").astype(str)

def _is_number(values): return pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)

def _banded(every, own):
    "Numbers as words, cut by what `every` row of the table holds."
    known = every.dropna().unique()
    codes = 1 < len(known) <= CODES and (known % 1 == 0).all() and np.ptp(known) < BAND
    band = lambda o: f"{o:.0f}" if codes else f"{o//BAND*BAND:.0f}-{o//BAND*BAND + BAND - 1:.0f}"
    return own.map(band, na_action="ignore")

def small_groups(
    rows:pd.DataFrame, # a study's table, on the sides that are scored
    names=None,        # columns, as for `subgroups`
) -> list:             # sentences, one a column that has such groups
    "Which groups of the test rows are too small to be compared, and columns that make one group."
    test, said = test_rows(rows), []
    hit, who = positive(test), pd.factorize(test["patient_id"])[0]
    words = group_words(rows, test["image"].astype(str), names)
    for name in words:
        small = [group for column, group, at in _groups(words[[name]]) if not _enough(hit, who, at)]
        n = words[name].nunique()
        if n == 1: said.append(f"{name}: all test rows are of one group, {words[name].iloc[0]}.")
        elif small: said.append(f"{name}: counts alone, as there are fewer than {MIN_PATIENTS} test patients of a "
                                f"class, in {len(small)} of {n} groups: {few(small, 6)}.")
    return said

def _parts(side, who, at):
    """{metric: values `[S]`, and what each patient adds to their mean `[patients]`} of the rows `at`, of both classes.
    The variance of a sum of such is the sum of squares over patients."""
    said = {k: side.read(METRICS[k].reads)[:, at] for k in FIGURES}
    return {k: influence(side.label[at], said[k], who[at], who.max() + 1, METRICS[k].slopes) for k in FIGURES}

def _varies(added): return added @ added > 1e-18

def _sureness(name, part, side, who, at):
    "The variance of a figure that no patient changes, such as all found: that of its own interval; 0 for others."
    if _varies(part[1]): return 0.
    value, low, high = _own(name, part, side, who, at)
    return (max(value - low, high - value)/student.ppf(.975, np.inf))**2

def _tested(values, added, sure=0., most=1):
    """A difference, of `most` at most, with its interval and p-value: patients (`sure` is some of theirs), and, from
    two seeds on, training."""
    n = (added != 0).sum()
    patients = (n/(n - 1)*(added @ added) if n > 1 else 0.) + sure
    luck = values.var(ddof=1)/len(values) if len(values) > 1 else 0.
    variance = patients + (luck if luck > 1e-18 else 0)
    nothing = dict(low=np.nan, high=np.nan, p=np.nan)
    if not variance > 1e-18: return dict(value=values.mean()) | nothing
    df = (len(values) - 1)*variance**2/luck**2 if luck > 1e-18 else np.inf
    half, se = student.ppf(.975, df)*np.sqrt(variance), np.sqrt(variance)
    mean = values.mean()
    return dict(value=mean, low=max(mean - half, -most), high=min(mean + half, most), p=2*student.sf(abs(mean)/se, df))

def _own(name, part, side, who, at):
    "A group's own figure with the interval of its patients: Wilson's with as many patients as its variance is worth."
    values, added = part
    if name == "rocauc": return values.mean(), *auc_interval(side.label[at], side.rank[:, at], who[at])
    p, n = values.mean(), len(np.unique(who[at & (side.label == METRICS[name].share_of)]))
    if p in (0, 1): return p, *wilson(p*n, n)
    alike = set(values) <= {0., 1.} # seeds that contradict one another
    if alike or not _varies(added): return p, np.nan, np.nan
    worth = p*(1 - p)/(added @ added)
    return p, *wilson(p*worth, worth)

def _enough(label, who, at):
    return min(len(np.unique(who[at & o])) for o in (label, ~label)) >= MIN_PATIENTS

def _groups(words):
    "Column, group, and which rows are in it."
    for name in words:
        for group in sorted(words[name].unique()): yield name, group, (words[name] == group).to_numpy()

def group_scores(
    predictions:pd.DataFrame, # as for `score_table`
    rows:pd.DataFrame,        # the study's table, for the metadata
    names=None,               # columns, numbers in bands of twenty; the table's metadata where not given
) -> pd.DataFrame:            # a line a backbone, arm, column, group and metric: `value low high` and `rest_* p holm`
    """Recall, specificity and AUC of every group, mean over seeds, with the interval of its patients; and its
    difference to the rest, which covers training too from two seeds on, with Holm's correction over all differences
    of a backbone.
    With fewer than `MIN_PATIENTS` of a class in the group there are counts alone; in the rest, no difference."""
    lines = []
    for backbone, test, _ in each_backbone(predictions):
        for arm, o in test.items():
            who, words = o.who, group_words(rows, o.image, names)
            for column, group, at in _groups(words):
                counts = dict(backbone=backbone, arm=arm, column=column, group=group) | o.at(at).counts
                counts |= dict(patients=len(np.unique(who[at])))
                lines += [counts | dict(metric=k) | v for k, v in _of_group(o, who, at).items()]
    table = pd.DataFrame(lines)
    return table if table.empty else table.assign(holm=_holm(table, "p"))

def _of_group(side, who, at):
    "Every metric of one group and arm."
    undefined = dict.fromkeys(("value", "low", "high", "rest", "rest_low", "rest_high", "p"), np.nan)
    enough = _enough(side.label, who, at)
    mine = _parts(side, who, at) if enough else {}
    rest = _parts(side, who, ~at) if enough and _enough(side.label, who, ~at) else {}
    res = {}
    for k in FIGURES:
        res[k] = dict(undefined)
        if enough: res[k] |= dict(zip(("value", "low", "high"), _own(k, mine[k], side, who, at)))
        if not rest: continue
        sides = (mine[k], at), (rest[k], ~at)
        sure = sum(_sureness(k, part, side, who, rows) for part, rows in sides)
        found = _tested(mine[k][0] - rest[k][0], mine[k][1] - rest[k][1], sure)
        res[k] |= dict(rest=found["value"], rest_low=found["low"], rest_high=found["high"], p=found["p"])
    return res

def _holm(table, name):
    "Corrected p-values, a family a backbone."
    from statsmodels.stats.multitest import multipletests
    fixed = table[name].copy()
    for _, p in table.groupby("backbone")[name]:
        known = p.dropna()
        if len(known): fixed[known.index] = multipletests(known, method="holm")[1]
    return fixed

def subgroups(
    predictions:pd.DataFrame, # as for `score_table`
    rows:pd.DataFrame,        # the study's table, for the metadata
    names=None,               # columns, numbers in bands of twenty; the table's metadata where not given
) -> pd.DataFrame:            # a line a backbone, arm, column and group
    """`group_scores` in words: a group's figures with the interval of its patients, and the difference to the rest.
    Where a group's share of positives decides, as with AP films, an arm of metadata alone shows it too. '-' where a
    class has fewer than `MIN_PATIENTS` patients."""
    table, lines = group_scores(predictions, rows, names), []
    if table.empty: return table
    keys = ["backbone", "arm", "column", "group", "n", "positives", "patients"]
    for key, own in table.groupby(keys, sort=False):
        line = dict(zip(keys, key)) | dict(arm=arm_title(key[1]))
        for o in own.itertuples():
            line[o.metric] = in_words(o.value, o.low, o.high)
            line[f"{o.metric} to the rest"] = signed(o.rest, o.rest_low, o.rest_high, o.holm)
        lines.append(line)
    return pd.DataFrame(lines)

def signed(
    value:float, # a difference
    low:float,   # of its interval
    high:float,  # the same
    p:float,     # after Holm's correction
) -> str:
    "A difference in words: '+0.120 [+0.010, +0.230] p .04'; '-' for what is undefined."
    if np.isnan(value): return "-"
    if np.isnan(low): return f"{number(value, 3, '+')} [-]"
    return with_ends(value, low, high, "+") + f" p {p:.2g}"

def interactions(
    predictions:pd.DataFrame, # as for `score_table`
    rows:pd.DataFrame,        # the study's table, for the metadata
    names=None,               # columns, numbers in bands of twenty; the table's metadata where not given
    pairs=None,               # (before, after); None: those of `comparisons_of`
) -> pd.DataFrame:            # a line a backbone, pair, column, group and metric
    """Does an arm gain more in a group than in the rest? `group_gain` and `rest_gain` are after minus before, `more`
    their difference with its 95% interval and p-value (patients, and seeds from two on), `holm` the p-value corrected
    over all lines of a backbone. Groups below `MIN_PATIENTS` of a class, inside or outside, are left out."""
    lines = []
    for backbone, test, _ in each_backbone(predictions):
        for before, after in comparisons_of(test) if pairs is None else pairs:
            if (both := paired(test, before, after)) is None: continue
            first, label, who = both[0], both[0].label, both[0].who
            for column, group, at in _groups(group_words(rows, first.image, names)):
                if not (_enough(label, who, at) and _enough(label, who, ~at)): continue
                about = dict(backbone=backbone, before=before, after=after, column=column, group=group)
                lines += [about | dict(n=first.at(at).counts["n"]) | o for o in _gains(*both, who, at)]
    table = pd.DataFrame(lines)
    return table if table.empty else table.assign(holm=_holm(table, "p"))

def _gains(before, after, who, at):
    "A line a metric."
    parts = [[_parts(o, who, rows) for o in (before, after)] for rows in (at, ~at)]
    for k in FIGURES:
        inside, outside = ([o[k] for o in part] for part in parts)
        gain = [after[0] - before[0] for before, after in (inside, outside)]
        added = [after[1] - before[1] for before, after in (inside, outside)]
        known = all(map(_varies, added)) # where no patient changes a gain, nothing says how sure it is
        found = _tested(gain[0] - gain[1], added[0] - added[1], 0. if known else np.nan, most=2)
        yield dict(metric=k, group_gain=gain[0].mean(), rest_gain=gain[1].mean(), more=found["value"],
                   more_low=found["low"], more_high=found["high"], p=found["p"])
