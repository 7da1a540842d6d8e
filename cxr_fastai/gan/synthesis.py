"""Synthetic rows: real training radiographs translated to the other class, and their manifest (paper section 3.3).

The paper adds 350 synthetic pneumonia images to the minority class, and says nothing of their metadata. Here a policy
gives it, and a probe says how well the metadata alone tells synthetic rows from real ones. A folder of synthetic rows
holds the pngs, `manifest.csv` (a line an image, enough to make it again) and `generator.json` (which patients the
generator was trained on), so that `add_synthetic` can refuse a leak long after. A translation keeps most of its source:
a png's name tells no patient, its pixels may."""
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from fastai.learner import Learner

from ..arms import PARTS, POLICIES
from ..cohort.cache import RadiographCache
from ..cohort.parts import JITTER, moved_sources, write_films
from ..cohort.phantom import is_drawn
from ..cohort.rows import classes, columns_of, is_synthetic, save_rows
from ..cohort.sampling import draw_evenly
from ..cohort.synthetic import _check_unseen, _WORDS, ANEW, GENERATOR, MANIFEST, MARK, NOTE, read_manifest
from ..core.files import atomic, atomic_folder, few, named_errors, read_json, say, write_json
from ..core.progress import progress
from .policies import Columns, match_sources, metadata_probe, verdict

__all__ = ["part_of", "resynthesise", "synthesise", "write_note"]

NOTE_DRAWN = "Synthetic radiographs by cxr_fastai: drawn films of no patient, changed by a model." + ANEW
_OWN = {*_WORDS, *JITTER, "seed", "size", "synthetic"}

def _jitters(source, seed):
    "Numbers of `JITTER` `[n,4]`: none at a source's first use; then small, from (seed, row)."
    res = np.tile([1., 0, 0, 0], (len(source), 1))
    for i in np.flatnonzero(source["file"].duplicated()):
        rng = np.random.default_rng([seed, i])
        res[i] = rng.uniform(1.03, 1.1), rng.uniform(-3, 3), *rng.uniform(-.02, .02, 2)
    return res.round(4)

def _translate(gan, lines, cache):
    return gan.translate(moved_sources(cache.get(lines["source_file"]), lines), lines["direction"].iloc[0])

def _lines(source, donor, names, metadata, **same):
    "The manifest: a line an image, `same` in all."
    lines = source[["image", "file", "patient_id"]].add_prefix("source_").reset_index(drop=True)
    kind = repr((same["generator"], metadata, same["seed"], len(lines))) # no name of two folders is the same
    lines["image"] = [f"{same['direction']}_{i:05}_{zlib.crc32(kind.encode()):08x}.png" for i in range(len(lines))]
    giver = dict(source=source, donor=donor).get(POLICIES[metadata].giver)
    for o in names: lines[o] = np.nan if giver is None else giver[o].array
    lines["donor_image"] = donor["image"].array if giver is donor else None
    lines = lines.assign(patient_id=lines["source_patient_id"], split="train", metadata_policy=metadata, **same)
    lines[JITTER] = _jitters(source, same["seed"])
    return lines

def _white(gan): return getattr(gan, "white", None) # any generator may translate

def _write(folder, gan, lines, bs, about):
    "Images, manifest and generator into an empty folder."
    cache = RadiographCache(lines["source_file"].unique().tolist(), gan.size, white=_white(gan))
    starts = range(0, len(lines), bs)
    for i in progress(starts, len(starts), f"Translating {len(lines):,} radiographs, in batches of {bs}"):
        batch = lines.iloc[i:i+bs]
        for name, pixels in zip(batch["image"], _translate(gan, batch, cache)):
            with named_errors(folder/name): Image.fromarray(pixels).save(folder/name, compress_level=1) # the quickest
    save_rows(lines, folder/MANIFEST)
    write_json(folder/GENERATOR, about)
    write_note(folder, lines)

def write_note(
    folder:str|Path,    # of synthetic films
    lines:pd.DataFrame, # their manifest
):
    "Say in a file beside synthetic films what they are: changed films of real patients, or of none."
    note = NOTE_DRAWN if is_drawn(lines.assign(file=lines["source_file"])) else NOTE
    if (file := Path(folder)/MARK).exists() and file.read_text(encoding="utf-8") == note: return
    with atomic(file) as tmp: tmp.write_text(note, encoding="utf-8")

def _refuse(gan, rows, names, *, direction, metadata, folder):
    "The settings and the table, or one sentence that says what is wrong with them."
    if metadata not in POLICIES: raise ValueError(f"metadata={metadata!r} is not known; use {', '.join(POLICIES)}.")
    if direction not in ("a2b", "b2a"):
        raise ValueError(f"direction={direction!r} is neither 'a2b' (to the positive class) nor 'b2a'.")
    if lost := [o for o in ("image", "file", "patient_id", "split", *names) if o not in rows]:
        raise ValueError(f"The rows have no column {few(lost)}, which synthesise needs.")
    if own := sorted(_OWN.intersection(names)):
        raise ValueError(f"{few(own)} can't name metadata: a column of the manifest has that name.")
    if folder.exists() and any(folder.iterdir()) and not (folder/MARK).exists():
        raise FileExistsError(f"{folder} holds files that synthesise did not make: name a new or empty folder.")
    _check_unseen(rows, gan.seen, "this model")

def synthesise(
    gan:Learner,               # a trained one: `size`, `seen`, `digest(direction)`, `translate(pixels, direction)`
    rows:pd.DataFrame,         # after `split_patients`; only real training rows are translated
    n:int=350,                 # synthetic rows (the paper: 350 of each class)
    direction:str="a2b",       # 'a2b': majority to synthetic minority; 'b2a': minority to synthetic majority
    out="synthetic",           # folder; made, or made anew where an earlier synthesis stands
    metadata:str="matched",    # a key of `POLICIES`
    seed:int=0,                # of sources, donors and jitter
    augment:bool=False,        # more rows than sources: translate them again, a little zoomed, turned and shifted
    bs:int=32,                 # images a batch
    **columns,                 # `cat_names`, `cont_names` (those that `rows` remember) and `within`, of `Columns`
) -> pd.DataFrame:             # one row an image, all in train, for `add_synthetic`
    """Translate training rows into labelled 8-bit pngs with their manifest, written whole or not at all, and print what
    metadata alone tells. ValueError for more rows than sources; LeakError if `gan` has seen valid or test patients."""
    folder, columns = Path(out), Columns(**columns_of(rows) | columns)
    _refuse(gan, rows, columns.names, direction=direction, metadata=metadata, folder=folder)
    train = rows[(rows["split"] == "train") & ~is_synthetic(rows)]
    there, here = classes(rows) if direction == "a2b" else reversed(classes(rows))
    sources, targets = (train[train["label"] == o] for o in (there, here))
    if not (len(sources) and len(targets)): raise ValueError("The training rows hold one class; both are needed.")
    if n < 1 or n > len(sources) and not augment:
        raise ValueError(f"n={n:,} synthetic rows were asked for, and there are {len(sources):,} {there} training rows "
                         "to translate, each once; augment=True translates them again, a little moved.")
    rng = np.random.default_rng(seed)
    donor = targets.iloc[draw_evenly(n, below=len(targets), rng=rng)]
    if POLICIES[metadata].matched: source = match_sources(donor, sources, columns, rng)
    else: source = sources.iloc[draw_evenly(n, below=len(sources), rng=rng)]
    label = pd.Categorical([here]*n, classes(rows), ordered=True)
    digest = gan.digest(direction)
    lines = _lines(source, donor, columns.names, metadata, label=label, direction=direction, size=gan.size, seed=seed,
                   generator=digest)
    auc = metadata_probe(rows, lines, cat_names=columns.cat_names, cont_names=columns.cont_names)
    about = dict(digest=digest, direction=direction, size=gan.size, n=n, seed=seed, augment=augment,
                 metadata=metadata, within=columns.within, cat_names=list(columns.cat_names),
                 cont_names=list(columns.cont_names),
                 probe=None if np.isnan(auc) else round(auc, 4), seen=sorted(gan.seen))
    with atomic_folder(folder) as tmp: _write(tmp, gan, lines, bs, about)
    say(f"{n:,} synthetic {here} rows ({source['file'].duplicated().sum():,} of augmented sources) are in {folder}. "
        f"Metadata '{metadata}': {verdict(metadata, auc, n, len(targets))}")
    return read_manifest(folder)

def part_of(
    rows:pd.DataFrame,  # as `synthesise` was given them
    synth:pd.DataFrame, # of one folder, that `read_manifest` gave
    part:str,           # of the change that is kept, a key of `PARTS`
    out:str|Path,       # folder; made, or made anew
):
    "Write the same synthetic rows with a part of the change alone: of the same sources, with the same metadata."
    about = read_json(Path(synth["file"].iloc[0]).parent/GENERATOR)
    about |= dict(digest=f"{about['digest']}+{part}", part=part)
    names = [f"{Path(o).stem}_{part}.png" for o in synth["image"]]
    lines = synth.drop(columns=["file", "synthetic"]).assign(image=names, generator=about["digest"])
    with atomic_folder(out) as tmp:
        write_films(tmp, rows, synth, names, about["size"], PARTS[part].films)
        save_rows(lines, tmp/MANIFEST)
        write_json(tmp/GENERATOR, about)
        write_note(tmp, lines)
    say(f"{len(names):,} of these with the part '{part}' of the change alone are in {out}.")

def resynthesise(
    gan:Learner,        # the generator that made them
    lines:pd.DataFrame, # rows of a manifest
    bs:int=32,          # images a batch
) -> np.ndarray:        # uint8 [n,h,w]
    "The pixels of each line's png, made again from its source. ValueError for another generator or size."
    res = np.empty((len(lines), gan.size, gan.size), np.uint8)
    cache = RadiographCache(lines["source_file"].unique().tolist(), gan.size, white=_white(gan))
    for way in lines["direction"].unique():
        at = np.flatnonzero(lines["direction"] == way)
        made = lines[["generator", "size"]].iloc[at].drop_duplicates().itertuples(index=False, name=None)
        if other := set(made) - {(gan.digest(way), gan.size)}:
            raise ValueError(f"These lines are of the generator (weights, size) {few(other)}, and this one is "
                             f"{gan.digest(way), gan.size}.")
        for i in range(0, len(at), bs): res[at[i:i+bs]] = _translate(gan, lines.iloc[at[i:i+bs]], cache)
    return res
