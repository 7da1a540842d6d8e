"""Which whole counts print a rounded ratio: test sets of n cases and so many positives, and their TP and FP. No torch.

A printed value is a range `(low, high)` of what it can have been rounded from; a row is a dict of such, by metric. TP,
FP, TN and FN are whole numbers, and so is rocauc x positives x negatives, the Mann-Whitney U, or a half with ties
(Hanley & McNeil 1982)."""
from collections import Counter
from math import gcd

import numpy as np

__all__ = ["counts_of", "excess_of", "search_sets"]

FP_BETWEEN = { # FP that print a metric from low to high, given TP, cases and positives: (fewest, most)
    "accuracy": lambda low, high, tp, n, pos: (tp + n-pos - n*high, tp + n-pos - n*low),
    "precision": lambda low, high, tp, n, pos: (tp/high - tp, tp/low - tp),
    "specificity": lambda low, high, tp, n, pos: ((n-pos)*(1 - high), (n-pos)*(1 - low)),
    "balanced_accuracy": lambda low, high, tp, n, pos: ((n-pos)*(1 + tp/pos - 2*high), (n-pos)*(1 + tp/pos - 2*low)),
    "f1": lambda low, high, tp, n, pos: (2*tp/high - tp - pos, 2*tp/low - tp - pos),
    # every TP outranks every TN, every FP every FN: TP*TN <= U <= positives*negatives - FP*FN
    "rocauc": lambda low, high, tp, n, pos: ((n-pos)*(1 - high*pos/tp), (1 - low)*pos*(n-pos)/(pos - tp)),
    "undefined precision": lambda low, high, tp, n, pos: (-tp, -tp), # printed as nan: TP + FP = 0
}
PRINTED = ("recall", *(o for o in FP_BETWEEN if o != "undefined precision")) # metrics that a table may have
FREE = 0., 1. # the range of a metric that is not there

def holds_whole(
    times:np.ndarray, # numbers
    low:float,        # of a range
    high:float,       # its other end
) -> np.ndarray:      # bool
    "Is there a whole number between low and high times these?"
    return np.ceil(low*times) <= np.floor(high*times)

def u_is_whole(row, n, positives): return holds_whole(2*positives*(n - positives), *row.get("rocauc", FREE))

def without(row, metric): return {k: o for k, o in row.items() if k != metric}

def _tp_range(row, positives):
    "First and stop of the TP that print the recall; at least 1 where precision is above 0."
    (low, high), (precision, _) = row.get("recall", FREE), row.get("precision", FREE)
    first = np.maximum(np.ceil(low*positives), precision > 0)
    return first.astype(int), np.floor(high*positives + 1).astype(int)

def _fp_range(row, tp, n, positives):
    "The fewest and the most FP that print all else; where nothing does, the fewest exceed the most."
    fewest, most = np.zeros(len(tp)), np.zeros(len(tp)) + n - positives
    with np.errstate(divide="ignore", invalid="ignore"):
        for name in row.keys() - {"recall"}:
            low, high = FP_BETWEEN[name](*row[name], tp, n, positives)
            fewest, most = np.fmax(fewest, np.ceil(low)), np.fmin(most, np.floor(high)) # 0/0 is nan and bounds nothing
    return fewest, most

def _allowed(row, max_n):
    "Every (n, positives) whose prevalence accuracy, recall and precision allow, whether counts are whole or not."
    accuracy, recall, precision = row["accuracy"], row["recall"], row.get("precision", FREE)
    low = (1 - accuracy[1])/(1 - recall[0] + recall[1]*(1/max(precision[0], 1e-9) - 1))
    high = (1 - accuracy[0])/max(1 - recall[1] + recall[0]*(1/precision[1] - 1), 1e-9)
    n = np.arange(2, max_n + 1)
    n = n[holds_whole(n, *accuracy)]
    first, last = np.ceil(n*low).clip(1).astype(int), np.floor(n*high).clip(max=n - 1).astype(int)
    size = np.maximum(last - first + 1, 0)
    return np.repeat(n, size), np.arange(size.sum()) + np.repeat(first + size - size.cumsum(), size)

def _fitting(row, max_n):
    "Every (n, positives) for which some whole counts print `row`."
    n, positives = _allowed(row, max_n)
    keep = holds_whole(positives, *row["recall"]) & u_is_whole(row, n, positives)
    n, positives = n[keep], positives[keep]
    (tp, stop), fits, todo = _tp_range(row, positives), np.zeros(len(n), bool), np.arange(len(n))
    while len(todo := todo[tp[todo] < stop[todo]]): # those that no TP has fitted yet
        fewest, most = _fp_range(row, tp[todo], n[todo], positives[todo])
        fits[todo] = fewest <= most
        todo = todo[fewest > most]
        tp[todo] += 1
    return n[fits], positives[fits]

def search_sets(
    table:list, # rows: metric -> (low, high), with accuracy and recall
    max_n:int,  # the largest test set looked for
) -> tuple:     # n and positives of the smallest that explains most rows, how many it does, and others as good `[m,2]`
    "Test sets whose whole counts print most rows; multiples of the smallest are no others. None, None where none does."
    count = np.zeros((max_n + 1, max_n + 1), np.int32)
    for row, times in Counter(tuple(o.items()) for o in table).items(): count[_fitting(dict(row), max_n)] += times
    if not (best := int(count.max())): return None, None, 0, []
    sets = np.argwhere(count == best)
    n, positives = sets[0].tolist()
    multiple = (sets[:, 0] % n == 0) & (sets[:, 0]*positives == sets[:, 1]*n)
    return n, positives, best, sets[~multiple]

def counts_of(
    row:dict,      # metric -> (low, high)
    n:int,         # cases
    positives:int, # of them
) -> tuple:        # in how many ways whole counts print it, and TP and FP of one of them, None where there is none
    "The counts behind a printed row."
    tp = np.arange(*_tp_range(row, np.array(positives)))
    fewest, most = _fp_range(row, tp, n, positives)
    ways = np.maximum(most - fewest + 1, 0).astype(int) * u_is_whole(row, n, positives)
    if not ways.any(): return 0, None, None
    return int(ways.sum()), int(tp[ways.argmax()]), int(fewest[ways.argmax()])

def chance_of_u(table, n, positives):
    "How often a rocauc printed like these gives a whole U, or a half, by mere chance; 1 without a rocauc."
    return max((2*positives*(n - positives)*np.ptp(o["rocauc"]) for o in table if "rocauc" in o), default=1.)

def excess_of(
    table:list,    # rows: metric -> (low, high)
    n:int,         # cases of a set that explains them
    positives:int, # of them
) -> int:          # 1: it isn't too large
    "How many times too large a set is, where only rocauc, which says little of large sets, asks for more."
    rows = [without(o, "rocauc") for o in table if counts_of(o, n, positives)[0]]
    distinct = len({counts_of(o, n, positives) for o in rows}) # each is a multiple by chance once in so many times
    def is_enough(part):
        small = n//part, positives//part
        return chance_of_u(table, *small) < .5 and all(counts_of(o, *small)[0] for o in rows)
    common = gcd(n, positives)
    parts = [o for o in range(2, common + 1) if common % o == 0 and o**distinct > 10_000]
    return max(filter(is_enough, parts), default=1)
