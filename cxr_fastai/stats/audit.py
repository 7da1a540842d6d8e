"""Can a printed table be of one test set? Whole counts recovered from rounded ratios (paper Figs 3-5, Table 1).

Accuracy, precision and recall (eq. 3) are ratios of TP, FP, TN and FN, and rocauc x positives x negatives is the
Mann-Whitney U: a whole number, or a half with ties (Hanley & McNeil 1982). Six printed decimals leave few choices."""
import re
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from io import StringIO
from math import gcd
from pathlib import Path

import numpy as np
import pandas as pd

from ..core.csvs import read_text
from ..core.files import few

__all__ = ["Audit", "audit_table"]

@dataclass(repr=False)
class Audit:
    "What `audit_table` found; print it to read the findings, one sentence each."
    name:str           # the table's file
    rows:pd.DataFrame  # the table, row 1 first; with accuracy and recall there, also `TP FP TN FN fits ways doubt`
    n:int|None         # cases of the test set; None where no test set fits, and for a table of recalls
    positives:int|None # positives of the test set, likewise; for a table of recalls: those that all columns share
    explained:int      # rows that this test set explains; for a table of recalls: columns
    clash:bool         # True: not all of it can be of one test set
    findings:list      # the sentences
    columns:dict = field(default_factory=dict) # for a table of recalls: column -> numbers of positives it can be over

    def __str__(self): return "\n".join([f"{self.name}:", *(f"- {o}" for o in self.findings)])
    __repr__ = __str__
    def _repr_markdown_(self): return str(self).replace(":\n", ":\n\n", 1)

_FP = { # the range of FP that prints a metric between a and b, given TP `t`, cases `n`, positives `p`, negatives `m`
    "accuracy"           : lambda a, b, t, n, p, m: (t+m - n*b, t+m - n*a),
    "precision"          : lambda a, b, t, n, p, m: (t/b - t, t/a - t),
    "specificity"        : lambda a, b, t, n, p, m: (m - m*b, m - m*a),
    "balanced_accuracy"  : lambda a, b, t, n, p, m: (m + m*t/p - 2*m*b, m + m*t/p - 2*m*a),
    "f1"                 : lambda a, b, t, n, p, m: (2*t/b - t-p, 2*t/a - t-p),
    # every TP outranks every TN, every FP every FN: TP*TN <= U <= p*m - FP*FN
    "rocauc"             : lambda a, b, t, n, p, m: (m - b*p*m/t, (1-a)*p*m/(p-t)),
    "undefined precision": lambda a, b, t, n, p, m: (-t, -t), # printed as nan: TP + FP = 0
}
_METRICS = ("recall", *list(_FP)[:-1])
_FREE, _NAN = (0., 1.), (np.nan, np.nan) # the range of a metric that is not there, and of one printed as nan

def _number(cell, where):
    try: value = Decimal(cell)
    except InvalidOperation: raise ValueError(f"{where}: {cell!r} is no number; give a ratio in 0 to 1.") from None
    if value.is_nan() or 0 <= value <= 1: return value
    raise ValueError(f"{where}: {cell!r} is not between 0 and 1; give a ratio, not a count or a percentage.")

def _range(value, raw):
    "All that rounds to `value`, widened by float32's error; `raw`: written in full, where a short one is exact."
    digits = 6 if raw else min(-value.as_tuple().exponent or 6, 6) # a bare 0 or 1 is exact too
    half = .5 * 10**-digits + 1e-7 # the paper's 0.820895 is 165/201 in float32; exactly it would round to 0.820896
    return max(float(value) - half, 0.), min(float(value) + half, 1.)

def _ranges(name, cells):
    "Cell by cell the `(low, high)` it can have been rounded from; None for an empty one."
    values = [_number(o, f"{name}, row {i}, column {cells.name}") if o else None for i, o in cells.items()]
    raw = any(o.as_tuple().exponent < -6 for o in values if o and o.is_finite())
    return [None if o is None else _NAN if o.is_nan() else _range(o, raw) for o in values]

def _whole(x, a, b):
    "Is there a whole number between a*x and b*x?"
    return np.ceil(a*x) <= np.floor(b*x)

def _u_whole(row, n, p): return _whole(2*p*(n - p), *row.get("rocauc", _FREE))

def _tp_range(row, p):
    "First and stop of the TP that print the recall; at least 1 where precision is above 0."
    (a, b), (c, _) = row.get("recall", _FREE), row.get("precision", _FREE)
    return np.maximum(np.ceil(a*p), c > 0).astype(int), np.floor(b*p + 1).astype(int)

def _fp_range(row, t, n, p):
    "The fewest and the most FP that print all else, given TP `t`; where nothing does, the fewest exceed the most."
    low, high = np.zeros(len(t)), np.zeros(len(t)) + n - p
    with np.errstate(divide="ignore", invalid="ignore"):
        for k in row.keys() - {"recall"}:
            lo, hi = _FP[k](*row[k], t, n, p, n - p)
            low, high = np.fmax(low, np.ceil(lo)), np.fmin(high, np.floor(hi)) # 0/0 is nan and bounds nothing
    return low, high

def _pairs(row, max_n):
    "Every (n, positives) whose prevalence accuracy, recall and precision allow, whether counts are whole or not."
    (a, b), (r, s), (c, d) = row["accuracy"], row["recall"], row.get("precision", _FREE)
    low = (1-b) / (1 - r + s*(1/max(c, 1e-9) - 1))
    high = (1-a) / max(1 - s + r*(1/d - 1), 1e-9)
    n = (every := np.arange(2, max_n + 1))[_whole(every, a, b)]
    first, last = np.ceil(n*low).clip(1).astype(int), np.floor(n*high).clip(max=n - 1).astype(int)
    size = np.maximum(last - first + 1, 0)
    return np.repeat(n, size), np.arange(size.sum()) + np.repeat(first + size - size.cumsum(), size)

def _fitting(row, max_n):
    "Every (n, positives) for which some whole counts print `row`."
    n, p = _pairs(row, max_n)
    keep = _whole(p, *row["recall"]) & _u_whole(row, n, p)
    n, p = n[keep], p[keep]
    (t, stop), fits, todo = _tp_range(row, p), np.zeros(len(n), bool), np.arange(len(n))
    while len(todo := todo[t[todo] < stop[todo]]):
        low, high = _fp_range(row, t[todo], n[todo], p[todo])
        fits[todo] = low <= high
        todo = todo[low > high]
        t[todo] += 1
    return n[fits], p[fits]

def _search(table, max_n):
    "The smallest (n, positives) that explains most rows, how many, and those as good that are no multiples of it."
    count = np.zeros((max_n + 1, max_n + 1), np.int32)
    for row, k in Counter(tuple(o.items()) for o in table).items(): count[_fitting(dict(row), max_n)] += k
    if not (best := int(count.max())): return None, None, 0, []
    pairs = np.argwhere(count == best)
    n, p = pairs[0].tolist()
    return n, p, best, pairs[(pairs[:, 0] % n > 0) | (pairs[:, 0]*p != pairs[:, 1]*n)]

def _counts(row, n, p):
    "In how many ways whole counts print `row`, and the TP and FP of one of them."
    t = np.arange(*_tp_range(row, np.array(p)))
    low, high = _fp_range(row, t, n, p)
    ways = np.maximum(high - low + 1, 0).astype(int) * _u_whole(row, n, p)
    if not ways.any(): return 0, None, None
    return int(ways.sum()), int(t[ways.argmax()]), int(low[ways.argmax()])

def _without(row, k): return {o: v for o, v in row.items() if o != k}

def _chance(table, n, p):
    "How often a rocauc printed like these gives a whole U, or a half, by mere chance; 1 without a rocauc."
    return max((2*p*(n - p) * np.ptp(o["rocauc"]) for o in table if "rocauc" in o), default=1.)

def _excess(table, n, p):
    "How many times too large a set is, where only rocauc, which says little of large sets, asks for more."
    rows = [_without(o, "rocauc") for o in table if n and _counts(o, n, p)[0]]
    distinct = len({_counts(o, n, p) for o in rows}) # each is a multiple of g by chance once in g times at most
    fits = lambda g: _chance(table, n//g, p//g) < .5 and all(_counts(o, n//g, p//g)[0] for o in rows)
    both = gcd(n or 0, p or 0)
    return max((g for g in range(2, both + 1) if both % g == 0 and g**distinct > 10_000 and fits(g)), default=1)

def _solve(row, n, p):
    "The columns that one row of the table gains."
    ways, tp, fp = _counts(row, n, p) if n else (0, None, None)
    if ways: return dict(TP=tp, FP=fp, TN=n - p - fp, FN=p - tp, fits=True, ways=ways, doubt="")
    doubt = " or ".join(k for k in row if n and _counts(_without(row, k), n, p)[0])
    return dict(TP=None, FP=None, TN=None, FN=None, fits=False, ways=0, doubt=doubt)

def _set(n, p): return f"n={n:,} with {p:,} positives"

def _say_fit(table, max_n, n, p, explained, others):
    yield f"{explained} of {len(table)} rows are whole counts of one test set, {_set(n, p)}."
    if not len(others): yield f"Up to n={max_n:,} no other set explains as many, but for whole multiples of it."
    else: yield f"So do {len(others):,} others up to n={max_n:,}, first {_set(*others[0])}: this is the smallest."
    whole, chance = [_u_whole(o, n, p) for o in table if "rocauc" in o], _chance(table, n, p)
    if chance < .5: yield (f"rocauc x {p:,} x {n-p:,} is a whole number, or a half (a tie), in {sum(whole)} of "
                           f"{len(whole)} rows; by chance it is in {chance:.1%}.")

def _say_misfits(rows, table, max_n, n, p):
    bad = rows[~rows.fits]
    for doubt, some in bad.groupby("doubt", sort=False):
        yield f"Not of this test set, by {doubt or 'more than one value'}: row {few(some.index, 5)}."
    n2, p2, together, _ = _search([table[i-1] for i in bad.index], max_n)
    if together > 1 and n2*p != n*p2: yield f"Of these {len(bad)} rows {together} fit {_set(n2, p2)}."

def _say_foreign(table, max_n):
    "Each column without which all rows fit."
    for k in [k for k in _METRICS[2:] if any(k in o for o in table)]:
        n, p, without, _ = _search([_without(o, k) for o in table], max_n)
        if without == len(table): yield f"Without {k} all rows fit {_set(n, p)}: {k} is of another set."

def _table(name, text):
    "The printed metrics as ranges, a dict a row."
    ranges = {c: _ranges(name, text[c]) for c in _METRICS if c in text}
    table = [dict(zip(ranges, o)) for o in zip(*ranges.values())]
    for i, row in zip(text.index, table):
        if row.get("precision") is _NAN: row["undefined precision"] = _FREE
        for k in [k for k, v in row.items() if v is None or v is _NAN]:
            if k in ("accuracy", "recall"):
                raise ValueError(f"{name}, row {i}, column {k}: empty or nan; counts rest on accuracy and recall.")
            del row[k]
    return table

def _audit_counts(name, rows, text, max_n):
    table = _table(name, text)
    n, p, best, others = _search(table, max_n)
    if (g := _excess(table, n, p)) > 1: n, p = n//g, p//g
    solved = pd.DataFrame([_solve(o, n, p) for o in table], index=rows.index)
    rows = rows.assign(**solved.astype({k: "Int64" for k in ("TP", "FP", "TN", "FN")}))
    explained, several = int(rows.fits.sum()), rows.index[rows.ways > 1]
    said = list(_say_fit(table, max_n, n, p, explained, others)) if n else [f"No row fits a set up to n={max_n:,}."]
    if g > 1: said[1] = f"A set {g} times as large explains {best}, but only as rocauc is printed too coarsely for it."
    if len(several): said.append(f"More than one set of counts prints row {few(several, 5)}; one is given.")
    if n and explained < len(table): said += _say_misfits(rows, table, max_n, n, p)
    if len(table) > explained + 1: said += _say_foreign(table, max_n)
    return Audit(name, rows, n, p, explained, explained < len(table), said)

def _denominators(ranges, most):
    "Every number of positives up to `most` over which all these recalls are ratios."
    p = np.arange(1, most + 1)
    return p[np.all([_whole(p, a, b) for a, b in ranges], axis=0)].tolist()

def _recalls(name, text):
    "Column -> its recalls as ranges; such a column starts with a decimal, an interval in brackets allowed after it."
    first = {c: next((o for o in text[c] if o), "") for c in text}
    arms = [c for c, o in first.items() if re.fullmatch(r"\d*\.\d+( \[.*\])?", o)]
    if not arms: raise ValueError(f"{name}: no column {few(_METRICS, 7)}, nor one of recalls; it has {few(text, 9)}.")
    ranges = {c: _ranges(name, text[c].str.split(" [", regex=False).str[0]) for c in arms}
    return {c: [o for o in v if o not in (None, _NAN)] for c, v in ranges.items()}

def _audit_recalls(name, rows, text, positives, most):
    ranges, most = _recalls(name, text), max(most, positives or 0)
    columns = {c: _denominators(o, most) for c, o in ranges.items()}
    said = [f"{c}: possible numbers of positives are {few(o) or f'none up to {most:,}'}." for c, o in columns.items()]
    every = sum(ranges.values(), [])
    if shared := _denominators(every, most): said.append(f"All columns can be over the same {few(shared)} positives.")
    else: said.append(f"No number of positives up to {most:,} serves all columns, so they are not of one test set"
                      + "".join(f"; the smallest that does is {o:,}" for o in _denominators(every, 10*most)[:1]) + ".")
    one = positives or next(iter(shared), 0)
    good = [c for c, o in ranges.items() if one in _denominators(o, one)]
    bad = [c for c in ranges if c not in good]
    if bad and one: said.append(f"{one:,} positives serve {', '.join(good) or 'no column'}, not {', '.join(bad)}.")
    return Audit(name, rows, None, None if bad else one, len(good), bool(bad), said, columns)

def _read(csv):
    "The cells as text, stripped, rows counted from 1, metrics' names in small letters."
    text = read_text(csv).fillna("")
    if text.empty: raise ValueError(f"{csv}: no rows below the header.")
    text.columns = [c.strip().lower() if c.strip().lower() in _METRICS else c.strip() for c in text]
    return text.set_axis(pd.RangeIndex(1, len(text) + 1, name="row"))

def audit_table(
    csv:str|Path,          # ratios as printed: metrics by row (Figs 3-5), or recalls by model and arm (Table 1)
    max_n:int=2000,        # the largest test set looked for, in cases
    positives:int=None,    # of a table of recalls: the test set's positives, where known; else its column `positives`
    max_positives:int=212, # of a table of recalls: the most positives there can be; the paper's cohort has 212
) -> Audit:                # print it for its findings
    """Recover TP, FP, TN, FN, n and positives from printed ratios; say what can't be of one test set.

    Metrics are columns named `accuracy recall` and any of `precision rocauc specificity balanced_accuracy f1`. A cell
    stands for all that rounds to it, so trailing zeros count (Table 1 has a 0.400 among four decimals); an empty cell
    says nothing. ValueError names file, row (from 1, below the header) and column of a cell that is no ratio."""
    text = _read(csv := Path(csv))
    rows, there = pd.read_csv(StringIO(text.to_csv()), index_col="row"), [c for c in _METRICS if c in text]
    if not there:
        stated = text.positives.unique() if "positives" in text else []
        if positives is None and len(stated) == 1 and stated[0].isdigit(): positives = int(stated[0])
        return _audit_recalls(csv.name, rows, text, positives, max_positives)
    if lacks := [c for c in ("accuracy", "recall") if c not in there]:
        raise ValueError(f"{csv}: no column {few(lacks)}; counts rest on accuracy and recall.")
    return _audit_counts(csv.name, rows, text, max_n)
