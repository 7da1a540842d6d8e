"""Two classes of what a column of labels says: which word is which, what is neither, and what is uncertain."""
import re
from collections.abc import Iterable

import numpy as np
import pandas as pd

from ..core.csvs import refuse_values
from ..core.files import few
from ..core.words import nearest_word, WordError
from ..settings import listed
from .words import fold_word, fold_words

__all__ = ["NEGATIVES", "check_negatives", "says_no", "two_classes"]

NEGATIVES, UNCERTAIN = ("clean", "all"), ("ones", "zeros", "drop")
_NO = {"0", "no", "none", "false", "absent", "negative", "neg", "normal", "normals", "healthy", "control", "controls",
       "nofinding", "nofindings", "clear", "unremarkable", "without"} # small letters and digits

def _plain(word): return "".join(o for o in str(word).lower() if o.isalnum())

def says_no(
    word:str,       # a label
    finding:str="", # that films may show
) -> bool:
    "Whether a label is known to say that there is nothing, or not the finding."
    no = {*_NO, *(_plain(f"{o} {finding}") for o in ("no", "non", "not", "without", "0") if finding)}
    return _plain(word) in no or _plain(word).removeprefix("is") in no

def check_negatives(
    word:str, # given
) -> bool:    # whether it is 'all'
    "ValueError for a word that is none of `NEGATIVES`."
    if word not in NEGATIVES:
        near = nearest_word(word, NEGATIVES)
        raise WordError(f"negatives='{word}' is neither 'clean' nor 'all'{near and f' ({near})'}.")
    return word == "all"

def _parts(word): return {o.strip() for o in re.split(r"[|;]", word)}

def _asked(given):
    "Words that are asked for, folded; of a number, its word."
    if given is None: return []
    given = listed(given) if isinstance(given, str) or isinstance(given, Iterable) else [given]
    return [fold_word(o) for o in given]

def _two(text, csv, positive, blanks):
    """Positive and negative words of a column of two, or of one whose blanks are the negative class. Which is positive
    is guessed of 0 and 1 only."""
    counts, column = text.value_counts(), text.name
    shown = few((f"'{k}' ({n:,})" for k, n in counts.items()), 6)
    if blanks and len(counts) == 1 and [*counts.index] == (positive or ["1"]): return [*counts.index], []
    if len(counts) != 2:
        todo = "--uncertain ones, zeros or drop says what -1 is" if "-1" in counts else (
            "of more, name --positive and --negative, or --positive with --negatives all")
        raise ValueError(f"{csv}: column '{column}' must hold two labels, not {len(counts)}: {shown}; {todo}.")
    if len({o.lower() for o in counts.index}) == 1:
        raise ValueError(f"{csv}: the two labels of column '{column}' are one word: {shown}; write it in one way.")
    if "-1" in counts and "0" not in counts:
        raise ValueError(f"{csv}: column '{column}' holds {shown}, and -1 may be the other class or an uncertain one; "
                         "say --negative -1, or --uncertain ones, zeros or drop.")
    pos = ["1"] if not positive and {*counts.index} == {"0", "1"} and not says_no(column) else positive
    if len(pos) != 1 or pos[0] not in counts:
        raise ValueError(f"{csv}: positive={', '.join(map(str, positive)) or None!r} doesn't say which label of column "
                         f"'{column}' is the positive class: {shown}.")
    return pos, [o for o in counts.index if o != pos[0]]

def _neither(text, csv, asked, which):
    there = sorted(set().union(*map(_parts, text.unique())))
    if lost := [o for o in asked if o not in {*there, *text.unique()}]:
        raise ValueError(f"{csv}: {few(map(repr, lost))}, asked for as {which}, is no label of column '{text.name}', "
                         f"which has {few(map(repr, there), 9)}.")

def _one_writing(text, csv, *sides):
    "ValueError where a word of a class stands in other capitals too, which would be of no class, or of the other."
    there = {*text.unique()}.union(*map(_parts, text.unique()))
    for side in sides:
        if not (odd := sorted(o for o in there - {*side} if o.lower() in {w.lower() for w in side})): continue
        raise ValueError(f"{csv}: column '{text.name}' has {few(map(repr, odd))} beside {few(map(repr, side))}, which "
                         "differ in capitals alone: write the word in one way, or name all writings, with commas.")

def _codes(text, positive, negative):
    "1 where a word of `positive` stands; 0 where all that stands is of `negative`, or for None is anything else; -1."
    each, words = text.factorize()
    said = lambda o: {o, *_parts(o)} & {*positive}
    no = lambda o: negative is None or o in negative or _parts(o) <= {*negative}
    return np.array([1 if said(o) else 0 if no(o) else -1 for o in words] + [-1])[each]

def two_classes(
    text:pd.Series,         # labels; its index is the line of each in the csv
    csv:str,                # where they are from
    positive=None,          # the positive class: a word or several, text with commas or a list
    negative=None,          # the negative one, likewise; words of neither have no label
    negatives:str="clean",  # 'all': whatever isn't positive is negative
    uncertain:str=None,     # labels that are blank or -1: 'ones' positive, 'zeros' negative, 'drop' without a label
) -> pd.Categorical:        # ordered, [negative, positive]
    "Labels as two classes. ValueError for words that don't say which is which, and for a row without any."
    every, positive, negative = check_negatives(negatives), _asked(positive), _asked(negative)
    if uncertain not in (None, *UNCERTAIN):
        near = nearest_word(uncertain, UNCERTAIN)
        raise WordError(f"uncertain='{uncertain}' is none of {', '.join(UNCERTAIN)}{near and f' ({near})'}.")
    folded = fold_words(text, "")
    unsure = (folded.isna() | (folded == "-1")).to_numpy(bool) & (uncertain is not None)
    blank = folded.isna().to_numpy(bool) & ~unsure
    refuse_values(blank, csv, text, "are no label",
                  "; --uncertain drop leaves such rows out, zeros takes them as negative")
    known = folded[~unsure]
    if not (negative or every): positive, negative = _two(known, csv, positive, unsure.any() and uncertain == "zeros")
    elif not positive: positive, negative = _other(known, csv, negative)
    _neither(known, csv, positive, "positive")
    _neither(known, csv, negative, "negative")
    _one_writing(known, csv, positive, negative)
    if both := {*positive} & {*negative}: raise ValueError(f"{few(map(repr, sorted(both)))} can't be both classes.")
    codes = np.full(len(text), dict(ones=1, zeros=0).get(uncertain, -1))
    codes[~unsure] = _codes(known, positive, None if every else negative)
    names = [negative[0] if len(negative) == 1 and not every else f"No {positive[0]}", positive[0]]
    return pd.Categorical.from_codes(codes, names, ordered=True)

def _other(known, csv, negative):
    "Of a column of two words, of which the negative one is named, the other."
    positive = [o for o in known.unique() if o not in negative]
    if len(positive) == 1: return positive, negative
    raise ValueError(f"{csv}: column '{known.name}' has {few(map(repr, sorted(known.unique())), 9)}; say by --positive "
                     "which is the positive class.")
