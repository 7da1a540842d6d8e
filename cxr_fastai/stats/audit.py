"""Can a printed table be of one test set? Its cells as ranges, and what `counts` finds behind them in sentences (paper
Figs 3-5, Table 1). Six decimals of accuracy, precision, recall (eq. 3) and rocauc leave few choices. No torch."""
import re
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd

from ..core.csvs import read_text
from ..core.files import few
from .counts import (chance_of_u, counts_of, excess_of, FREE, holds_whole, PRINTED, search_sets, u_is_whole, without)

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

_NAN = (np.nan, np.nan) # the range of a metric that is printed as nan

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

def _solve(row, n, positives):
    "The columns that one row of the table gains."
    ways, tp, fp = counts_of(row, n, positives) if n else (0, None, None)
    if ways:
        return dict(TP=tp, FP=fp, TN=n - positives - fp, FN=positives - tp, fits=True, ways=ways, doubt="")
    doubt = " or ".join(k for k in row if n and counts_of(without(row, k), n, positives)[0])
    return dict(TP=None, FP=None, TN=None, FN=None, fits=False, ways=0, doubt=doubt)

def _set(n, positives): return f"n={n:,} with {positives:,} positives"

def _say_fit(table, max_n, n, positives, explained, others):
    yield f"{explained} of {len(table)} rows are whole counts of one test set, {_set(n, positives)}."
    if not len(others): yield f"Up to n={max_n:,} no other set explains as many, but for whole multiples of it."
    else: yield f"So do {len(others):,} others up to n={max_n:,}, first {_set(*others[0])}: this is the smallest."
    whole = [u_is_whole(o, n, positives) for o in table if "rocauc" in o]
    if (chance := chance_of_u(table, n, positives)) < .5:
        yield (f"rocauc x {positives:,} x {n-positives:,} is a whole number, or a half (a tie), in {sum(whole)} of "
               f"{len(whole)} rows; by chance it is in {chance:.1%}.")

def _say_misfits(rows, table, max_n, n, positives):
    bad = rows[~rows.fits]
    for doubt, some in bad.groupby("doubt", sort=False):
        yield f"Not of this test set, by {doubt or 'more than one value'}: row {few(some.index, 5)}."
    other_n, other_positives, together, _ = search_sets([table[i-1] for i in bad.index], max_n)
    if together > 1 and other_n*positives != n*other_positives:
        yield f"Of these {len(bad)} rows {together} fit {_set(other_n, other_positives)}."

def _say_foreign(table, max_n):
    "Each column without which all rows fit."
    for name in PRINTED:
        if name in ("recall", "accuracy") or not any(name in o for o in table): continue
        n, positives, explained, _ = search_sets([without(o, name) for o in table], max_n)
        if explained == len(table): yield f"Without {name} all rows fit {_set(n, positives)}: {name} is of another set."

def _table(name, text):
    "The printed metrics as ranges, a dict a row."
    ranges = {c: _ranges(name, text[c]) for c in PRINTED if c in text}
    table = [dict(zip(ranges, o)) for o in zip(*ranges.values())]
    for i, row in zip(text.index, table):
        if row.get("precision") is _NAN: row["undefined precision"] = FREE
        for k in [k for k, v in row.items() if v is None or v is _NAN]:
            if k in ("accuracy", "recall"):
                raise ValueError(f"{name}, row {i}, column {k}: empty or nan; counts rest on accuracy and recall.")
            del row[k]
    return table

def _audit_counts(name, rows, text, max_n):
    table = _table(name, text)
    n, positives, best, others = search_sets(table, max_n)
    times = excess_of(table, n, positives) if n else 1
    if times > 1: n, positives = n//times, positives//times
    solved = pd.DataFrame([_solve(o, n, positives) for o in table], index=rows.index)
    rows = rows.assign(**solved.astype(dict.fromkeys(("TP", "FP", "TN", "FN"), "Int64")))
    explained, several = int(rows.fits.sum()), rows.index[rows.ways > 1]
    said = [f"No row fits a set up to n={max_n:,}."]
    if n: said = list(_say_fit(table, max_n, n, positives, explained, others))
    if times > 1:
        said[1] = f"A set {times} times as large explains {best}, but only as rocauc is printed too coarsely for it."
    if len(several): said.append(f"More than one set of counts prints row {few(several, 5)}; one is given.")
    if n and explained < len(table): said += _say_misfits(rows, table, max_n, n, positives)
    if len(table) > explained + 1: said += _say_foreign(table, max_n)
    return Audit(name, rows, n, positives, explained, explained < len(table), said)

def _denominators(ranges, most):
    "Every number of positives up to `most` over which all these recalls are ratios."
    positives = np.arange(1, most + 1)
    return positives[np.all([holds_whole(positives, *o) for o in ranges], axis=0)].tolist()

def _recalls(name, text):
    "Column -> its recalls as ranges; such a column starts with a decimal, an interval in brackets allowed after it."
    first = {c: next((o for o in text[c] if o), "") for c in text}
    arms = [c for c, o in first.items() if re.fullmatch(r"\d*\.\d+( \[.*\])?", o)]
    if not arms: raise ValueError(f"{name}: no column {few(PRINTED, 7)}, nor one of recalls; it has {few(text, 9)}.")
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
    text.columns = [c.strip().lower() if c.strip().lower() in PRINTED else c.strip() for c in text]
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
    rows, there = pd.read_csv(StringIO(text.to_csv()), index_col="row"), [c for c in PRINTED if c in text]
    if not there:
        stated = text.positives.unique() if "positives" in text else []
        if positives is None and len(stated) == 1 and stated[0].isdigit(): positives = int(stated[0])
        return _audit_recalls(csv.name, rows, text, positives, max_positives)
    if lacks := [c for c in ("accuracy", "recall") if c not in there]:
        raise ValueError(f"{csv}: no column {few(lacks)}; counts rest on accuracy and recall.")
    return _audit_counts(csv.name, rows, text, max_n)
