"""Which column of a table is what, by names and by what is in them; each guess is a line that names its flag.

An image is what is found in the folder; a patient and a label go by their names, a label without one by its two words;
metadata is what has few words, or numbers. Where two columns fit, nothing is guessed: the sentence names both."""
import re
from collections.abc import Callable
from difflib import get_close_matches

import numpy as np
import pandas as pd

from ..core.files import few, say
from ..settings import listed
from .giveaway import feature_leak, NOT_FEATURES
from .labels import says_no
from .places import is_film
from .readers import NIH_FINDINGS
from .rows import check_names, columns_of, RESERVED, with_columns
from .sampling import side_of
from .words import _kind, fold_numbers, fold_words, UNCLEAR

__all__ = ["guess_columns", "guess_new", "patient_of"]

_IMAGE = """file filename filepath image imageindex imageid imagename imagepath imagefile img imgname imgpath path
    dicomid dicom sopinstanceuid xrayimagename film name""".split()
_PATIENT = [{"patientid", "patient", "patientnumber", "patientnr", "patientno", "patientname", "pid", "patid", "patno",
             "patnr"},
            {"subjectid", "subject", "personid", "person", "mrn", "caseid", "case", "participant", "participantid"}]
_LABEL = set("""label labels class classes target diagnosis diagnoses diagnose dx finding findings findinglabels disease
    pathology outcome category y""".split())
_ASIDE = re.compile("label|class|target|diagnos|finding|disease|patholog|outcome|report|impression|box|split|fold|"
                    "width|height|pixel|date|time|study|series|uid|path|file|image|url|follow|visit|index|accession|"
                    "id$")
_FINDINGS = {*(o.replace("_", "").lower() for o in NIH_FINDINGS), *"nofinding normal lungopacity opacity lunglesion "
             "pleuraleffusion fracture supportdevices covid covid19 tb tuberculosis".split()}
_ASIDE_WHOLE = _FINDINGS | set("x y w h set no nr number row license doi notes comment".split())
OF_NAME = "patient in the image's name" # a column that is made
FEW_WORDS, FEW_NUMBERS, SAMPLE = 12, 5, 200 # words of a category; numbers that are words; names looked for

_PERSON = re.compile(r"(?:^|[^a-z])((?:person|patient|subject|participant|case|pat|pid|sub)[-_ ]?[0-9]+)", re.I)
_OWN = [re.compile(r"((?:NORMAL2-)?IM-[0-9]+)-[0-9]+"), re.compile(r"([0-9]{8})_[0-9]{3}(?![0-9])")] # Kermany's, NIH's

def plain(name):
    "A name's small letters and digits."
    return "".join(o for o in str(name).lower() if o.isalnum())

def patient_of(
    name:str, # a film's, with folders or without
) -> str:     # None where it doesn't tell
    "Whose film it is, as its name tells: person1_bacteria_2, IM-0115-0001, 00000013_005, patient00001/study1/view1."
    for part in str(name).replace("\\", "/").split("/"):
        if found := _PERSON.search(part): return found[1].lower()
        for o in _OWN:
            if found := o.match(part): return found[1]
    return None

class Guess:
    "What each column of a table is taken for; `lines` say why, and by which flag another is."
    def __init__(self, text, csv, given):
        self.text, self.csv, self.given, self.lines = text, csv, given, []
        self.asked = [o for names in (given.get("cat"), given.get("cont")) for o in listed(names or ())]

    def told(self, role, name, why, flag):
        "`name`, which is written down as what it is taken for."
        self.lines.append((role, str(name), why, flag))
        return name

    def refuse(self, what, flag, fits=(), but=()):
        "ValueError: two columns fit, or none but those that are something else."
        there = few(map(repr, fits or [o for o in self.text if o not in (OF_NAME, *but)]), 12) or "none"
        why = f"{there} may each be {what}" if fits else f"no column is known to be {what}, of {there}"
        raise ValueError(f"{self.csv}: {why}; say which by {flag}.")

    def named(self, role):
        "A column that a flag names, if it does; ValueError where there is none of that name."
        if (name := self.given.get(role)) is None: return None
        return self.told(role, self.there(name, role), "given", f"--{role}")

    def there(self, name, flag):
        "`name`, if it is a column; ValueError, with the nearest one, where it is none."
        if name in self.text: return name
        near = get_close_matches(name, map(str, self.text), 1)
        hint = f"did you mean '{near[0]}'?" if near else f"its columns are {', '.join(map(str, self.text))}."
        raise ValueError(f"{self.csv} has no column '{name}', which --{flag} names; {hint}")

    def screened(self, rows):
        "The rows without guessed metadata that gives the answer away, or the patient."
        own, sides = columns_of(rows), rows.assign(split="train")
        bad = {o: feature_leak(sides, o)[0] for names in own.values() for o in names if o not in self.asked}
        bad = {o: why for o, why in bad.items() if why}
        self.lines = [("-", o[1], bad[o[1]], "--cat --cont") if o[0] in ("cat", "cont") and o[1] in bad else o
                      for o in self.lines]
        return with_columns(rows.drop(columns=[*bad]), **{k: [o for o in v if o not in bad] for k, v in own.items()})

    def say(self):
        "One line a column."
        wide = [max(len(o[i]) for o in self.lines) for i in range(3)]
        head = f"{self.csv}: which column is what; a flag says it otherwise."
        say("\n".join([head, *("  " + "  ".join(o.ljust(w) for o, w in zip(line, [*wide, 0])) for line in self.lines)]))

# Image, patient, label

def _image(guess, find):
    "The column whose values are films that are there; by its name where none is."
    text = guess.text
    if name := guess.named("image"): return name
    some = {o: text[o].dropna().drop_duplicates() for o in text}
    alone = [o for o in text if len(some[o]) == len(text) > 0 or len(some[o]) == text[o].notna().sum() > 0]
    share = {o: _found(some[o], find) for o in alone}
    fits = {o: found for o, found in share.items() if len(found)}
    if not fits: return _image_by_name(guess, some)
    known = sorted(fits, key=lambda o: (-len(fits[o]), plain(o) not in _IMAGE, list(text).index(o)))
    best = known[0]
    other = [o for o in known[1:] if len(fits[o]) >= .9*len(fits[best]) and set(fits[o]) != set(fits[best])]
    if other: guess.refuse("the images", "--image", [best, *other])
    return guess.told("image", best, f"{len(fits[best])} of {min(SAMPLE, len(some[best]))} looked for are there",
                      "--image")

def _found(values, find):
    "Paths of the films of a sample; none where half of it is no film."
    some = values.iloc[np.linspace(0, len(values) - 1, min(SAMPLE, len(values))).astype(int)].tolist()
    found = find(some)
    return list(found.values()) if 2*len(found) > len(some) else []

def _image_by_name(guess, some):
    "Where no film is found: a column with names of films, or a usual name."
    films = [o for o in some if len(some[o]) and some[o].map(is_film).mean() > .9]
    usual = [o for o in guess.text if plain(o) in _IMAGE]
    fits = [o for o in films if o in usual] or films or usual[:1]
    if len(fits) != 1: guess.refuse("the images", "--image", fits)
    return guess.told("image", fits[0], "by its name: no film was found", "--image")

def _patient(guess, image):
    "The column of patients; their names within those of the images; None where nothing tells."
    text = guess.text
    if name := guess.named("patient"): return name
    for tier in _PATIENT:
        fits = [o for o in text if plain(o) in tier and o != image and text[o].notna().any()]
        if len(fits) > 1 and len(text.drop_duplicates(fits)) > text[fits[0]].nunique():
            guess.refuse("the patients", "--patient", fits)
        if fits: return guess.told("patient", fits[0], f"{text[fits[0]].nunique():,} patients", "--patient")
    who = text[image].map(patient_of, na_action="ignore")
    if who.isna().any():
        raise ValueError(f"{guess.csv}: no column is known to name the patients, of {few(map(repr, text), 12)}; say "
                         f"which by --patient, or --patient {image!r} where each film is of another patient.")
    text[OF_NAME] = who
    guess.told("patient", image, f"{who.nunique():,} patients, by the names of their films", "--patient")
    return OF_NAME

def _parts(values): return set().union(*(re.split(r"\s*[|;]\s*", o) for o in values))

def _words(text, name):
    words = fold_words(text[name].dropna(), "").dropna()
    return [o for o in words.unique() if o != "-1"]

def _numeric(words): return all(o.replace(".", "", 1).isdecimal() for o in words)

def _is_split(guess, name):
    return plain(name) in ("split", "set", "subset", "partition", "fold", "phase", "datasettype", "usage") and all(
        side_of(o) for o in guess.text[name].dropna().unique())

def _label(guess, taken):
    """The column of labels: the finding's own, one of a usual name, one that is named for another finding, or else the
    only one of two words, where no other has a word that says no."""
    text, finding = guess.text, guess.given.get("finding") or "Pneumonia"
    if name := guess.named("label"): return name
    free = [o for o in text if o not in taken and not _is_split(guess, o) and text[o].notna().any()]
    for fits in *_by_name(text, free, finding), _by_words(text, free):
        fits = [o for o in fits if not says_no(o, finding)] or fits
        if len(fits) > 1 and _differ(text, fits): guess.refuse("the label", "--label", fits)
        if fits: return guess.told("label", fits[0], _counts(text, fits[0]), "--label")
    guess.refuse("the label", "--label", but=[*taken])

def _by_name(text, free, finding="Pneumonia"):
    "Columns that may be the label by their names: the finding's own, those of a usual name, those of other findings."
    own = [o for o in free if plain(o) == plain(finding)]
    usual = [o for o in free if plain(o) in _LABEL]
    telling = [o for o in usual if plain(finding) in map(plain, _parts(_words(text, o)))]
    return own, telling, usual, [o for o in free if plain(o) in _FINDINGS]

def guess_new(
    text:pd.DataFrame, # of `read_text`, all columns
    csv:str,           # where it is from
    find:Callable,     # names to {name: path} of the films that are there
    given:dict,        # what flags name: `image patient`
) -> pd.DataFrame:     # with `image file`, and `patient_id` where a column is known to be of patients
    "Films of new patients, where no column is the label by its name: else None. All columns stay, for a model to read."
    if any(_by_name(text, [o for o in text if text[o].notna().any()])): return
    guess = Guess(text.copy(), csv, given)
    image = _image(guess, find)
    try: patient = _patient(guess, image)
    except ValueError: # each film is then a patient
        if "patient" in given: raise
        patient = None
    names, who = text[image].fillna(""), {} if patient is None else dict(patient_id=guess.text[patient])
    return text.assign(image=names, file=names.map(find(names.tolist())), **who)

def _by_words(text, free):
    "Columns of two words, and where there are any, of few words of which one says no: what may be a label."
    words = {o: _words(text, o) for o in free if not _kind(o)}
    two = [o for o in words if len(words[o]) == 2]
    few_words = [o for o in words if 2 < len(words[o]) <= FEW_WORDS and not _numeric(words[o])]
    more = [o for o in few_words if any(map(says_no, words[o]))]
    return two and two + more

def _differ(text, names):
    "Whether columns divide the rows in other ways."
    codes = [pd.factorize(fold_words(text[o], ""))[0] for o in names]
    return any(not np.array_equal(codes[0], o) for o in codes[1:])

def _counts(text, name):
    counts = fold_words(text[name], "").value_counts()
    return few((f"{k} ({n:,})" for k, n in counts.items()), 4)

def _classes(guess, label):
    "Which words of the label are positive and negative, as far as they were not given."
    given, words = guess.given, sorted(_words(guess.text, label))
    finding, positive, negative = given.get("finding") or "Pneumonia", given.get("positive"), given.get("negative")
    every, parts = given.get("negatives") == "all", sorted(_parts(words))
    no = [o for o in words if any(says_no(o, other) for other in (finding, *words))]
    if positive is None:
        if says_no(label, finding): _unsaid(guess, label, words, "--positive", ", as it is named for films without")
        same = [o for o in parts if plain(o) == plain(finding)]
        rest = [o for o in words if o not in (no if negative is None else listed(negative))]
        if same: positive = same[0]
        elif given.get("finding") and plain(label) != plain(finding): positive = finding # isn't there, as will be said
        elif len(rest) == 1: positive = rest[0]
        else: _unsaid(guess, label, words, "--positive")
    if negative is None and not every and len([o for o in words if o != positive]) > 1:
        if len(no) != 1: _unsaid(guess, label, words, "--negative (or --negatives all)")
        negative = no[0]
    rest = "all others" if every else negative if negative is not None else few(o for o in words if o != positive)
    guess.told("classes", positive, f"against {rest}", "--positive --negative --negatives")
    return positive, negative

def _unsaid(guess, label, words, flag, why=""):
    raise ValueError(f"{guess.csv}: column '{label}' has {few(map(repr, words), 9)}, which don't say which is which "
                     f"class{why}; name it by {flag}.")

# Metadata

def _metadata(guess, taken):
    "Columns of words and of numbers: those given, and of what isn't given, those among the rest."
    given = {o: guess.given.get(o) for o in ("cat", "cont")}
    named = {k: [guess.there(o, k) for o in listed(v)] for k, v in given.items() if v is not None}
    check_names(named.get("cat", []), named.get("cont", []))
    for k, names in named.items():
        for o in names: guess.told(k, o, "given", f"--{k}")
    res = {"cat": [], "cont": []} | named
    for o in guess.text:
        if o in taken or o in guess.asked: continue
        what, why = _what(guess, o)
        if what in named: what, why = "-", f"not among --{what}"
        if what in res: res[what].append(o)
        guess.told(what, o, why, f"--{what}" if what in res else "--cat --cont")
    return dict(cat_names=res["cat"], cont_names=res["cont"])

def _what(guess, name):
    "What a column is, 'cat', 'cont', or '-' for neither; and why."
    values, short, kind = guess.text[name], plain(name), _kind(name)
    there = values.dropna()
    if not len(there): return "-", "it is empty"
    if _is_split(guess, name): return "-", "maybe the table's own split: --split-column takes it"
    if name in RESERVED or short in NOT_FEATURES: return "-", "of a name that metadata can't have"
    words, (numbers, why) = fold_words(there, name), fold_numbers(there, name)
    n, number = words.nunique(), (why.eq("") | why.str.endswith("years")).all()
    if (unclear := why.eq(UNCLEAR)).any() and (unclear | why.eq("")).all():
        return "-", f"{few(map(repr, there[unclear]))}: {UNCLEAR.removeprefix('is ')}"
    if not kind and (_ASIDE.search(short) or short in _ASIDE_WHOLE): return "-", "no metadata, by its name"
    if not kind and n < 2: return "-", "one word in all rows"
    if number and (kind == "age" or not kind and n > FEW_NUMBERS):
        return "cont", f"numbers, {numbers.min():g} to {numbers.max():g}"
    if kind == "age": return "-", f"{few(map(repr, there[why != '']))} are no ages"
    if kind or n <= FEW_WORDS and 2*n <= len(there): return "cat", f"words: {few(sorted(words.dropna().unique()), 5)}"
    if 2*(odd := why != "").sum() < len(there):
        return "-", f"numbers, but for {few(sorted(there[odd].unique()), 3)}: left blank, they are missing"
    return "-", f"{n:,} different words"

def guess_columns(
    text:pd.DataFrame, # of `read_text`, all columns; one of patients may join
    csv:str,           # where it is from
    find:Callable,     # names to {name: path} of the films that are there
    given:dict,        # what flags name: of `load_cohort`
) -> tuple:            # column names for `table_rows`, and the `Guess`, whose lines are to be said
    "What each column is. ValueError where a flag names none, where nothing fits, or where two do."
    if text.empty: raise ValueError(f"{csv} holds no rows below its header.")
    guess = Guess(text, csv, given)
    image = _image(guess, find)
    patient = _patient(guess, image)
    if given.get("split_column") is not None: guess.told("split", guess.there(given["split_column"], "split-column"),
                                                        "given", "--split-column")
    taken = {image, patient, given.get("split_column")}
    label = _label(guess, taken | {*guess.asked})
    positive, negative = _classes(guess, label)
    names = dict(image=image, patient=patient, label=label, columns=_metadata(guess, taken | {label}))
    return names | dict(positive=positive, negative=negative), guess
