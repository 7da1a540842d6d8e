"""Synthetic films of any generator, as rows for train: whoever made them, from whatever patients.

Of our own films it is known which patient each was made from, and whom the generator saw. Of others' it mostly isn't:
then perceptual hashes stand in, by which no film may be a copy of a real one of valid or test."""
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from ..arms import POLICIES
from ..core.csvs import read_text, refuse_values
from ..core.files import few, say
from ..core.generators import check_generator
from .cache import RadiographCache
from .duplicates import near_duplicates, turned_duplicates
from .leaks import _altered, LeakError
from .places import films_below, find_films, tables_in
from .rows import classes, columns_of, fold_metadata, is_synthetic
from .sampling import draw_evenly

__all__ = ["AT", "check_copies", "copies_of_held", "external_films", "film_policy", "is_external",
           "read_films"]

AT = "@"      # before a generator's name in the column `generator`, where it isn't ours
HASHED = 256  # side at which films are compared, pixels
OWN = "own"   # the policy of films whose table has their metadata
FILE, SOURCE = ("file", "image"), ("source", "source_image") # what a table may call these columns

# Reading

def _label_of(words, names, where):
    "Classes of words: as the rows have them in any case, or 0 and 1. ValueError for any other, by its line."
    known = {"0": names[0], "1": names[1]} | {str(o).strip().casefold(): o for o in names}
    label = words.map(lambda o: known.get(str(o).strip().casefold()))
    refuse_values(label.isna(), where, words, f"are neither of {few(names)}")
    return label

def _column(text, names, csv):
    found = next((o for o in names if o in text), None)
    if found: return text[found]
    raise ValueError(f"{csv} has no column '{names[0]}'; a table of synthetic films has file and label, and may have "
                     f"source and metadata. Its columns are {', '.join(text)}.")

def _of_table(csv, rows):
    "Films of a csv: `file label source`, and the metadata that it has."
    text = read_text(csv)
    if text.empty: raise ValueError(f"{csv} holds no films below its header.")
    names = _column(text, FILE, csv)
    refuse_values(names.isna(), csv, names, "are empty")
    refuse_values(names.duplicated(keep=False), csv, names, "name one film twice")
    label = _label_of(_column(text, ["label"], csv), classes(rows), csv)
    there = find_films(Path(csv).parent, names)
    file = names.map(lambda o: o if Path(o).is_absolute() and Path(o).is_file() else there.get(o))
    if (lost := names[file.isna()]).size:
        raise FileNotFoundError(f"{csv}: {len(lost):,} of {len(names):,} films aren't below {Path(csv).parent}: "
                                f"{few(lost)}.")
    source = next((text[o] for o in SOURCE if o in text), pd.Series(np.nan, text.index, dtype=object))
    columns = columns_of(rows)
    own = {o: text[o] for o in sum(columns.values(), []) if o in text}
    table = pd.DataFrame(dict(image=names, file=file, label=label, source=source) | own).reset_index(drop=True)
    return fold_metadata(table, **{k: [o for o in v if o in own] for k, v in columns.items()})

def _of_folder(folder, rows):
    "Films of a folder: of class folders, or all of the positive class, which is said."
    found = films_below(folder)
    if not found: raise FileNotFoundError(f"{folder} holds no film, and no csv that names some.")
    names, first = classes(rows), pd.Series([PurePosixPath(o).parts[0] for o in found], name="folder")
    if all("/" not in o for o in found):
        label = pd.Series([names[1]]*len(found))
        say(f"{folder} says no labels: its {len(found):,} films are taken for {names[1]}.")
    else: label = _label_of(first.set_axis(range(1, len(found) + 1)), names, folder)
    return pd.DataFrame(dict(image=found, file=[str(Path(folder)/o) for o in found], label=label.to_numpy(),
                             source=pd.Series(np.nan, range(len(found)), dtype=object)))

def read_films(
    films:str|Path,    # a csv: `file label`, maybe `source`, metadata; a folder: with one, of class folders, of films
    rows:pd.DataFrame, # of the study: their classes, metadata columns and images
) -> pd.DataFrame:     # `image file label source`, and metadata that it has; a source that isn't of `rows` is NaN
    """Synthetic films of any generator. ValueError or FileNotFoundError, one sentence, for a table or folder that isn't
    understood, a label that is none of the two, a film that is named twice or isn't there."""
    path = Path(films)
    if not path.exists():
        raise FileNotFoundError(f"There is no file or folder '{path}', which should hold synthetic films.")
    tables = [path] if path.is_file() else tables_in(path)
    if len(tables) > 1: raise ValueError(f"{path} holds {len(tables)} tables, {few(o.name for o in tables)}: name one.")
    table = _of_table(tables[0], rows) if tables else _of_folder(path, rows)
    names = table["source"].map(lambda o: PurePosixPath(str(o).replace("\\", "/")).name, na_action="ignore")
    real = rows.loc[~is_synthetic(rows), "image"].astype(str)
    label = pd.Categorical(table["label"], classes(rows), ordered=True)
    return table.assign(source=names.astype(object).where(names.isin(real)), label=label)

# Copies of what is held out

def _pairs(hashes, sides, films):
    "(pairs `[m,2]`, what was done to one of both `[m]`) of films on two sides, by each search there is."
    pairs, _ = near_duplicates(hashes, sides)
    yield pairs, ["a copy"]*len(pairs)
    pairs, _, what = turned_duplicates(hashes, sides)
    yield pairs, what
    for mirror, what in (False, "altered"), (True, "mirrored and altered"):
        table = pd.DataFrame(dict(split=[f"{o} {what}" for o in sides])) # by which what was found is remembered
        pairs = _altered(table, hashes, lambda at, mirror=mirror: films(at, mirror))
        yield pairs, [what]*len(pairs)

def copies_of_held(
    rows:pd.DataFrame, # after `split_patients`, with `file`
    files:Iterable,    # of films that are to be trained on
) -> pd.DataFrame:     # `file image split what`: a film of `files`, the real one it is of, and what was done to it
    """Which films are copies of a real film of valid or test: resized, resaved, brighter, turned over, inverted;
    cropped, bordered, marked, moved or turned a little, and mirrored or not."""
    held = rows[rows["split"].ne("train") & ~is_synthetic(rows)]
    files, found, n = [str(o) for o in files], {}, len(held)
    every = [*held["file"].astype(str), *files]
    if min(n, len(files)):
        cache = RadiographCache(list(dict.fromkeys(every)), HASHED)
        def films(at, mirror):
            x = cache.get([every[i] for i in at])
            return np.where((np.asarray(at) >= n)[:, None, None] & mirror, x[..., ::-1], x)
        hashes = cache.hashes(every)
        same = pd.DataFrame(hashes).groupby(list(range(4))).ngroup().to_numpy() # the first of some stands for all
        for pairs, what in _pairs(hashes, np.repeat(["held", "made"], [n, len(files)]), films):
            for (i, j), o in zip(np.sort(pairs, axis=1).tolist(), what):
                for k in np.flatnonzero(same[n:] == same[j]): found.setdefault(k, (i, o))
    lines = [(files[k], *held[["image", "split"]].iloc[i], o) for k, (i, o) in sorted(found.items())]
    return pd.DataFrame(lines, columns=["file", "image", "split", "what"])

def check_copies(
    rows:pd.DataFrame,  # after `split_patients`
    synth:pd.DataFrame, # of `external_films`
):
    "LeakError where a film of another generator is a copy of a real one of valid or test."
    copies = copies_of_held(rows, synth["file"])
    if copies.empty: return
    said = few(f"{o.file} = {o.image} ({o.split}), {o.what}" for o in copies.itertuples())
    raise LeakError(f"{len(copies):,} of {len(synth):,} films of {few(pd.unique(synth['generator']))} are copies of "
                    f"real films that models are scored on: {said}; leave them out (copies_of_held names all).")

# Rows

def is_external(
    rows:pd.DataFrame, # any rows
) -> pd.Series:        # bool
    "Which rows are synthetic films of another generator than ours."
    if "generator" not in rows: return pd.Series(False, rows.index)
    return rows["generator"].astype(str).str.startswith(AT) & rows["generator"].notna()

def _drawn(table, n, seed, name):
    "So many films of each label, without replacement; all where `n` is None."
    if n is None: return table
    rng, parts = np.random.default_rng(seed), []
    for label, many in n.items():
        own = table[table["label"] == label]
        if many > len(own): raise ValueError(f"{many:,} films of {label} by {name} were asked for, and there are "
                                             f"{len(own):,}.")
        parts.append(own.iloc[np.sort(rng.permutation(len(own))[:many])])
    return pd.concat(parts)

def film_policy(
    table:pd.DataFrame, # of `read_films`
    names:list,         # metadata columns of the rows
    name:str,           # of the generator
    metadata:str=None,  # a key of `POLICIES`; None: the films' own where their table has all columns, else 'donor'
) -> str:
    "Where the metadata of another generator's films comes from. ValueError for a policy that needs what isn't known."
    own = [o for o in names if o in table]
    if metadata is None:
        if own and len(own) < len(names):
            say(f"Films of {name} have {few(own)} and not {few([o for o in names if o not in own])}: their metadata is "
                "a donor's.")
        return OWN if own and own == names else "donor"
    if metadata not in POLICIES: raise ValueError(f"metadata={metadata!r} is not known; use {', '.join(POLICIES)}.")
    if POLICIES[metadata].matched:
        raise ValueError(f"Films of {name} can't have metadata by {metadata!r}, which chooses the films that are "
                         "translated: take 'donor'.")
    if POLICIES[metadata].giver == "source" and (lost := table["source"].isna()).any():
        raise ValueError(f"Films of {name} can't have metadata by {metadata!r}: of {lost.sum():,} of {len(table):,} it "
                         "isn't known which of these rows they were made from; take 'donor'.")
    return metadata

def _given(table, train, policy, names, seed):
    "The metadata of each film, and the image it is of; None where it is nobody's."
    giver = POLICIES[policy].giver if policy in POLICIES else None
    if policy == OWN: return table[names], None
    if giver is None: return pd.DataFrame(np.nan, table.index, names), None
    rng, who = np.random.default_rng([seed, 1]), table["source"].astype(object)
    if giver == "donor":
        for label, at in table.groupby("label", observed=True).groups.items():
            there = train.loc[train["label"] == label, "image"].to_numpy()
            if not len(there): raise ValueError(f"There is no real training row of {label} to give its metadata.")
            who[at] = there[draw_evenly(len(at), below=len(there), rng=rng)]
    by_image = train.drop_duplicates("image").set_index("image")[names]
    return by_image.reindex(who).set_axis(table.index), who

def external_films(
    rows:pd.DataFrame,      # after `split_patients`, with `file`
    films:str|pd.DataFrame, # a folder or csv, as of `read_films`; or the table that it gave
    name:str,               # of the generator: letters, digits, '.', '_', '-'
    n:dict=None,            # label -> how many films of it, drawn; all there are where not given
    metadata:str=None,      # a key of `POLICIES`, but 'matched'; the films' own where their table has all, else 'donor'
    seed:int=0,             # of the draw and of donors
) -> pd.DataFrame:          # one row a film, all in train, for `add_synthetic`
    """Synthetic films of any generator as rows. LeakError where one is a copy of a real film of valid or test, or was
    made from such a row. ValueError or FileNotFoundError for films that aren't there, and metadata that isn't known."""
    check_generator(name)
    if "file" not in rows: raise ValueError("The rows have no column 'file', by which films would be compared.")
    table = films if isinstance(films, pd.DataFrame) else read_films(films, rows)
    table, train = _drawn(table, n, seed, name), rows[rows["split"].eq("train") & ~is_synthetic(rows)]
    names = sum(columns_of(rows).values(), [])
    policy = film_policy(table, names, name, metadata)
    owner = rows.drop_duplicates("image").set_index("image")[["patient_id", "split"]].reindex(table["source"])
    if (held := owner["split"].notna() & owner["split"].ne("train")).any():
        raise LeakError(f"{held.sum():,} films of {name} were made from real films that aren't in train: "
                        f"{few(table['image'][held.to_numpy()])}.")
    given, donor = _given(table, train, policy, names, seed)
    nobody = pd.Series([f"{AT}{name} {i:05}" for i in table.index], table.index, object)
    about = dict(image=[f"{name}/{o}" for o in table["image"]], file=table["file"].astype(str), label=table["label"],
                 patient_id=nobody.where(table["source"].isna(), owner["patient_id"].set_axis(table.index)),
                 source_image=table["source"], donor_image=donor if policy in POLICIES else None)
    same = dict(split="train", seed=seed, synthetic=True, generator=AT + name, metadata_policy=policy)
    synth = pd.DataFrame(about, table.index).assign(**{o: given[o] for o in names}, **same)
    check_copies(rows, synth)
    return synth.reset_index(drop=True)
