import json, zlib
from pathlib import Path
import numpy as np, pandas as pd, pytest
from PIL import Image
from cxr_fastai.cohort.cache import RadiographCache
from cxr_fastai.cohort.readers import read_nih
from cxr_fastai.cohort.sampling import paper_cohort, split_patients
from cxr_fastai.data.loaders import RadiographDataLoaders
from cxr_fastai.cohort.leaks import LeakError
from cxr_fastai.models.learner import fusion_learner
from cxr_fastai.data.metadata import MetadataTransform
from cxr_fastai.cohort.phantom import draw_radiograph
from cxr_fastai.arms import POLICIES
from cxr_fastai.cohort.parts import _jittered, JITTER
from cxr_fastai.cohort.synthetic import add_synthetic, read_manifest
from cxr_fastai.gan.synthesis import resynthesise, synthesise
from cxr_fastai.report.films import plot_synthetic
from conftest import SHARED, needs_nih

NAMES = ["sex", "view", "age"]

class Fade:
    "A generator that was never trained: less contrast one way, more the other. It notes the batches it is given."
    size = 32
    def __init__(self, rows=None, strength=.5):
        self.seen = set() if rows is None else set(rows["patient_id"][rows["split"] == "train"].astype(str))
        self.strength, self.batches = strength, []
    def digest(self, direction): return f"{zlib.crc32(f'{direction}{self.strength}'.encode()):016x}"
    def translate(self, pixels, direction):
        self.batches.append(len(pixels))
        times = {"a2b": self.strength, "b2a": 1/self.strength}[direction]
        return ((pixels - 128.)*times + 128).clip(0, 255).astype(np.uint8)

def train_of(rows, label): return rows[(rows["split"] == "train") & (rows["label"] == label)]
def png(rows): return np.stack([np.asarray(Image.open(o)) for o in rows["file"]])
def by_image(rows, images): return rows.set_index("image").loc[images]

@pytest.fixture
def make(rows, tmp_path):
    "Nine synthetic rows, which are too few for the probe; anything else by name."
    return lambda n=9, table=rows, out="out", gan=None, **kwargs: synthesise(
        gan or Fade(table), table, n, out=tmp_path/out, **kwargs)

# what is written

def test_each_png_is_its_source_translated(rows, make):
    synth = make(bs=4)
    assert len(synth) == 9 and {Image.open(o).mode for o in synth["file"]} == {"L"}
    sources = RadiographCache(synth["source_file"].tolist(), 32).get(synth["source_file"])
    np.testing.assert_array_equal(png(synth), Fade().translate(sources, "a2b"))
    real = by_image(rows, synth["source_image"])
    assert (real["file"].values == synth["source_file"]).all()
    assert (real["patient_id"].values == synth["patient_id"]).all()

@pytest.mark.parametrize("direction, there, here", [("a2b", "Normal", "Pneumonia"), ("b2a", "Pneumonia", "Normal")])
@pytest.mark.parametrize("metadata", POLICIES)
def test_sources_are_training_rows_of_one_class_each_once(rows, make, direction, there, here, metadata):
    synth = make(direction=direction, metadata=metadata)
    assert set(synth["source_image"]) <= set(train_of(rows, there)["image"]) and synth["source_image"].is_unique
    assert (synth["label"] == here).all() and synth["label"].dtype == rows["label"].dtype
    assert (synth["split"] == "train").all() and synth["synthetic"].dtype == bool and synth["synthetic"].all()
    assert synth["image"].is_unique and not set(synth["image"]) & set(rows["image"])
    if metadata in ("matched", "donor"): assert set(synth["donor_image"]) <= set(train_of(rows, here)["image"])
    else: assert synth["donor_image"].isna().all()

def test_a_films_name_tells_no_patient_and_a_note_says_whose_films_they_are(rows, make, tmp_path):
    synth = make()
    for names in synth["image"], [o.name for o in (tmp_path/"out").iterdir()]:
        told = " ".join(names)
        assert not any(Path(o).stem in told for o in rows["image"])
        assert not any(str(o) in told for o in rows["patient_id"])
    note = (tmp_path/"out"/"SYNTHETIC.txt").read_text()
    assert "no patient" not in note and "real patients" in note and "terms of the data" in note and "recognised" in note
    assert not set(synth["image"]) & set(make(out="other", seed=1)["image"]) # so that folders can be joined

def test_changed_drawings_are_films_of_no_patient(rows, make, tmp_path):
    files = [str(tmp_path/o) for o in rows["image"]]
    for i, o in enumerate(files): Image.fromarray(draw_radiograph(i % 2, 50, "F", "PA", i % 3, size=64)).save(o)
    make(table=rows.assign(file=files))
    said = (tmp_path/"out"/"SYNTHETIC.txt").read_text()
    assert said.startswith("Synthetic radiographs by cxr_fastai: drawn films of no patient")

def test_a_folder_of_before_is_read_under_its_own_names(rows, make, tmp_path):
    synth, folder = make(), tmp_path/"out"
    old = {o: f"a2b_{i:05}_{Path(s).stem}.png" for i, (o, s) in enumerate(zip(synth["image"], synth["source_image"]))}
    for new, name in old.items(): (folder/new).rename(folder/name)
    text = (folder/"manifest.csv").read_text()
    for new, name in old.items(): text = text.replace(new, name)
    (folder/"manifest.csv").write_text(text)
    read = read_manifest(folder)
    assert list(read["image"]) == list(old.values()) and (png(read) == resynthesise(Fade(), synth)).all()
    assert len(add_synthetic(rows, read)) == len(rows) + 9

def test_images_are_translated_in_batches(rows, make):
    gan = Fade(rows)
    make(gan=gan, bs=4)
    assert gan.batches == [4, 4, 1]

def test_the_manifest_names_everything(rows, make, tmp_path):
    gan = Fade(rows)
    synth = make(gan=gan, seed=3, metadata="donor")
    table = pd.read_csv(tmp_path/"out"/"manifest.csv", dtype=dict(generator=str))
    assert (table["image"] == [Path(o).name for o in synth["file"]]).all()
    for o in ("source_image", "source_file", "source_patient_id", "donor_image", *JITTER, *NAMES):
        assert table[o].equals(synth[o].astype(table[o].dtype)), o
    same = dict(direction="a2b", split="train", generator=gan.digest("a2b"), seed=3, metadata_policy="donor", size=32)
    assert (table[list(same)] == list(same.values())).all(axis=None)
    about = json.loads((tmp_path/"out"/"generator.json").read_text())
    assert about["digest"] == gan.digest("a2b") and about["seen"] == sorted(gan.seen) and len(about["seen"]) > 20
    assert about["size"] == 32 and about["direction"] == "a2b" and about["probe"] is None

def test_a_manifest_reads_back_as_the_rows_wherever_it_was_moved(make, tmp_path):
    synth = make(30, metadata="source", augment=True)
    pd.testing.assert_frame_equal(read_manifest(tmp_path/"out"), synth)
    (tmp_path/"out").rename(tmp_path/"moved")
    moved = read_manifest(tmp_path/"moved")
    assert (png(moved) == resynthesise(Fade(), synth)).all()
    pd.testing.assert_frame_equal(moved.drop(columns="file"), synth.drop(columns="file"))

def test_another_folder_is_no_manifest(tmp_path):
    with pytest.raises(FileNotFoundError, match="generator.json"): read_manifest(tmp_path)

def test_a_seed_gives_its_bits_and_another_gives_others(make, tmp_path):
    a, b, c = make(out="a", seed=1), make(out="b", seed=1), make(out="c", seed=2)
    pd.testing.assert_frame_equal(a.drop(columns="file"), b.drop(columns="file"))
    assert (png(a) == png(b)).all() and not a["image"].equals(c["image"])
    assert (tmp_path/"a"/"manifest.csv").read_bytes() == (tmp_path/"b"/"manifest.csv").read_bytes()

def test_nothing_global_is_drawn_from(make):
    state = np.random.get_state()[1].copy()
    make()
    assert (np.random.get_state()[1] == state).all()

# more rows than sources

def test_more_rows_than_sources_are_refused_with_both_numbers(rows, make, tmp_path):
    there = len(train_of(rows, "Normal"))
    with pytest.raises(ValueError, match=f"n={there+1} .* {there} Normal .*augment=True"): make(there + 1)
    for n in (0, -1):
        with pytest.raises(ValueError, match=f"n={n} "): make(n, augment=True)
    assert not list(tmp_path.iterdir())
    assert len(make(there, metadata="source")) == there

@pytest.mark.parametrize("metadata", ["matched", "source"])
def test_augmented_sources_are_moved_from_their_second_use_on(rows, make, metadata):
    n = 2*len(train_of(rows, "Normal")) + 3
    synth = make(n, metadata=metadata, augment=True)
    moved = synth[JITTER] != [1, 0, 0, 0]
    for o in (moved.all(axis=1), moved.any(axis=1)): assert o.equals(synth["source_image"].duplicated())
    assert synth["source_image"].value_counts().max() == 3
    assert synth["zoom"].between(1, 1.1).all() and synth["angle"].abs().max() <= 3
    assert synth[["shift_x", "shift_y"]].abs().max(axis=None) <= .02
    assert (synth[JITTER] == synth[JITTER].round(4)).all(axis=None) # so short that a csv can't change them
    assert len(np.unique(png(synth), axis=0)) == n # no image twice

def test_augment_changes_nothing_where_there_are_sources_enough(make):
    pd.testing.assert_frame_equal(make(out="a").drop(columns="file"), make(out="b", augment=True).drop(columns="file"))

def test_every_row_is_made_again_from_its_line_alone(rows, make):
    synth = make(len(train_of(rows, "Pneumonia"))*2 + 5, direction="b2a", augment=True)
    assert (resynthesise(Fade(), synth, bs=7) == png(synth)).all()
    for i in (0, len(synth) - 1): assert (resynthesise(Fade(), synth.iloc[[i]]) == png(synth.iloc[[i]])).all()

def test_lines_of_both_directions_and_of_a_joined_table_are_made_again(rows, make):
    both = add_synthetic(add_synthetic(rows, make(out="ab")), make(out="ba", direction="b2a"))
    lines = both[both["synthetic"]].sample(frac=1, random_state=0)
    assert (resynthesise(Fade(), lines) == png(lines)).all() and set(lines["direction"]) == {"a2b", "b2a"}

def test_another_generator_or_size_can_not_make_them_again(make):
    synth, larger = make(), Fade()
    larger.size = 48
    for gan in (Fade(strength=.6), larger):
        with pytest.raises(ValueError, match="These lines are of the generator"): resynthesise(gan, synth)

def at(x, y, side=41):
    film = np.zeros((side, side), np.uint8)
    film[y-1:y+2, x-1:x+2] = 250
    return film

def middle(film): return tuple(np.round(o.mean()) for o in np.nonzero(film > 125))[::-1]

@pytest.mark.parametrize("jitter, wanted", [
    ((1, 0, .1, 0), (34, 20)), ((1, 0, 0, .1), (30, 24)), ((1.5, 0, 0, 0), (35, 20)), ((1, 90, 0, 0), (20, 30)),
    ((1.5, 0, .1, 0), (39, 20))])
def test_a_film_is_zoomed_and_turned_about_its_middle_and_moved_by_shares_of_its_side(jitter, wanted):
    assert middle(_jittered(at(30, 20), *jitter)) == wanted

# metadata

def test_matched_rows_have_a_training_rows_own_metadata_and_a_source_like_it(rows, make, capsys):
    synth = make(12, within=5.)
    donor, source = by_image(rows, synth["donor_image"]), by_image(rows, synth["source_image"])
    for o in NAMES: pd.testing.assert_series_equal(donor[o].reset_index(drop=True), synth[o], check_dtype=False)
    alike = (donor[["sex", "view"]].to_numpy() == source[["sex", "view"]].to_numpy()).all(1)
    gap = abs(donor["age"].to_numpy() - source["age"].to_numpy())
    alike &= (gap <= 5) | donor["age"].isna().to_numpy() & source["age"].isna().to_numpy()
    assert alike.sum() >= 6
    if not alike.all(): assert f"{(~alike).sum()} of 12 rows have no unused source" in capsys.readouterr().out

def test_donors_are_used_equally_often(rows, make):
    donors = len(train_of(rows, "Pneumonia"))
    for metadata in ("matched", "donor"):
        used = make(2*donors + 3, metadata=metadata, augment=True)["donor_image"].value_counts()
        assert len(used) == donors and used.value_counts().to_dict() == {2: donors - 3, 3: 3}

def test_source_missing_and_image_only(rows, make):
    synth = make(metadata="source")
    source = by_image(rows, synth["source_image"]).reset_index(drop=True)
    pd.testing.assert_frame_equal(source[NAMES], synth[NAMES], check_dtype=False)
    for metadata in ("missing", "image-only"): assert make(metadata=metadata)[NAMES].isna().all(axis=None)

def test_the_verdict_is_printed(make, tmp_path, capsys):
    told = {}
    for metadata in ("matched", "missing", "image-only"):
        make(14, metadata=metadata)
        told[metadata] = capsys.readouterr().out.splitlines()[-1]
    assert "image branch alone" in told["image-only"] and "AUC" not in told["image-only"]
    assert "AUC of 1.000 (WARNING" in told["missing"] and "WARNING" not in told["matched"]
    make()
    assert "too few rows" in capsys.readouterr().out

@needs_nih
@pytest.mark.slow
def test_policies_on_the_sample(tmp_path, capsys):
    folder = SHARED/"nih_sample"
    rows = read_nih(folder/"Data_Entry_2017_v2020.csv", images=folder)
    rows = split_patients(paper_cohort(rows, n_normal=None, first_visit=False))
    aucs = {}
    for metadata in POLICIES:
        synth = synthesise(Fade(rows), rows, 160, out=tmp_path/"out", metadata=metadata)
        aucs[metadata] = json.loads((tmp_path/"out"/"generator.json").read_text())["probe"]
        if metadata == "matched": RadiographDataLoaders.from_df(add_synthetic(rows, synth), tmp_path, size=32)
    assert aucs["matched"] <= .55 and aucs["donor"] <= .55 < aucs["missing"] and aucs["missing"] > .99
    assert aucs["image-only"] is None
    out = capsys.readouterr().out
    assert out.count("WARNING") == sum(o > .55 for o in aucs.values() if o is not None)

# adding them

def test_added_rows_come_last_in_train_with_the_types_of_the_real_ones(rows, make):
    synth = make()
    both = add_synthetic(rows, synth)
    assert both["synthetic"].dtype == bool and both["synthetic"].tolist() == [False]*len(rows) + [True]*9
    for o in ("label", "patient_id", "split", "sex"): assert both[o].dtype == rows[o].dtype
    assert (both["image"] == [*rows["image"], *synth["image"]]).all() and both.index.equals(pd.RangeIndex(len(both)))
    pd.testing.assert_frame_equal(both[rows.columns].iloc[:len(rows)], rows.reset_index(drop=True), check_dtype=False)
    assert (both["patient_id"].iloc[-9:].values == by_image(rows, synth["source_image"])["patient_id"].values).all()

def test_ids_and_words_are_those_of_the_real_rows(rows, make):
    coded = rows.assign(patient_id=rows["patient_id"].astype(str).astype(object), site=(rows["sex"] == "M").astype(int))
    both = add_synthetic(coded, make(table=coded, cat_names=("site",)))
    assert {type(o) for o in both["patient_id"]} == {str} and both["site"].dtype == coded["site"].dtype
    assert MetadataTransform(("site",), ()).fit(both).stats == dict(site=["0", "1"])

def test_both_directions_can_be_added(rows, make):
    both = add_synthetic(add_synthetic(rows, make(out="ab")), make(out="ba", direction="b2a"))
    assert both.groupby("label", observed=True)["synthetic"].sum().to_dict() == {"Normal": 9, "Pneumonia": 9}
    synths = pd.concat([make(out="ab"), make(out="ba", direction="b2a")])
    pd.testing.assert_frame_equal(add_synthetic(rows, synths).drop(columns="file"), both.drop(columns="file"))

def test_synthetic_rows_are_neither_sources_nor_donors(rows, make):
    both = add_synthetic(rows, make(out="ab"))
    again = make(table=both, out="again", gan=Fade(rows))
    assert not set(again["source_image"]) & set(both["image"][both["synthetic"]])
    assert set(make(12, table=both, out="b2a", direction="b2a", gan=Fade(rows))["source_image"]) <= set(rows["image"])

def moved(rows, patients, side): return rows.assign(split=rows["split"].mask(rows["patient_id"].isin(patients), side))

@pytest.mark.parametrize("side", ["valid", "test"])
def test_a_source_outside_train_is_refused(rows, make, side):
    synth = make(gan=Fade()) # never trained: it has seen nobody
    words = f"1 synthetic rows were made from patients of valid or test: {synth['image'][4]}"
    with pytest.raises(LeakError, match=words): add_synthetic(moved(rows, [synth["patient_id"][4]], side), synth)

def test_a_source_outside_train_is_refused_under_another_patients_id_too(rows, make):
    synth = make(gan=Fade())
    at = rows["image"] == synth["source_image"][2]
    other = rows.assign(patient_id=rows["patient_id"].mask(at, 1), split=rows["split"].mask(at, "test"))
    with pytest.raises(LeakError, match=f"1 synthetic rows were made from .*: {synth['image'][2]}"):
        add_synthetic(other, synth)

def test_a_donor_outside_train_is_refused(rows, make):
    synth = make(gan=Fade(), metadata="donor")
    donor = by_image(rows, synth["donor_image"])["patient_id"].iloc[0]
    with pytest.raises(LeakError, match="have the metadata of valid or test rows"):
        add_synthetic(moved(rows, [donor], "test"), synth)

def test_a_generator_that_saw_a_patient_of_valid_or_test_is_refused(rows, make):
    synth = make()
    other = set(rows["patient_id"][rows["split"] == "train"]) - set(synth["patient_id"])
    other = next(iter(other - set(by_image(rows, synth["donor_image"])["patient_id"])))
    table = moved(rows, [other], "valid")
    first = rows["image"][rows["patient_id"] == other].iloc[0]
    words = rf"1 patients that aren't in train: {first} \(valid\)"
    with pytest.raises(LeakError, match=words): add_synthetic(table, synth)
    with pytest.raises(LeakError, match=words): make(table=table, gan=Fade(rows), out="other") # before it is made

def test_synthetic_rows_stay_in_train(rows, make):
    synth = make()
    with pytest.raises(LeakError, match=f"1 synthetic rows aren't in train.*: {synth['image'][2]}"):
        add_synthetic(rows, synth.assign(split=["train"]*2 + ["test"] + ["train"]*6))
    for side in ("valid", "test"):
        with pytest.raises(LeakError, match="no training rows"): add_synthetic(rows[rows["split"] == side], synth)

def test_what_can_not_be_checked_is_refused(rows, make, tmp_path):
    synth, text = make(), (tmp_path/"out"/"generator.json").read_text()
    (tmp_path/"out"/"generator.json").write_text(text.replace(Fade().digest("a2b"), "0"*16))
    with pytest.raises(ValueError, match="is of another generator than the rows a2b_00000"): add_synthetic(rows, synth)
    (tmp_path/"out"/"generator.json").unlink()
    with pytest.raises(ValueError, match="holds no generator.json"): add_synthetic(rows, synth)
    with pytest.raises(ValueError, match="no column 'file'"): add_synthetic(rows.drop(columns="file"), synth)
    other = rows.assign(label=rows["label"].cat.rename_categories(["No", "Yes"]))
    with pytest.raises(ValueError, match="'No', 'Yes'"): add_synthetic(other, synth)

def share_missing(both, label):
    train = train_of(both, label)
    return train[NAMES].isna().all(axis=1).mean()

def test_missing_metadata_is_made_as_frequent_in_the_other_class(rows, make, capsys):
    both = add_synthetic(rows, make(metadata="missing"))
    p, other = len(train_of(rows, "Pneumonia")), len(train_of(rows, "Normal"))
    masked = round(9/(p + 9)*other)
    assert share_missing(both, "Pneumonia") == 9/(p + 9) and share_missing(both, "Normal") == masked/other
    assert f"of {masked} of {other} training rows that aren't Pneumonia is masked" in capsys.readouterr().out
    kept = both[~both["synthetic"]]
    changed = kept[NAMES].isna().all(axis=1).to_numpy() & rows[NAMES].notna().any(axis=1).to_numpy()
    assert changed.sum() == masked and (kept[changed][["split", "label"]] == ["train", "Normal"]).all(axis=None)
    again = add_synthetic(rows, make(metadata="missing"))
    pd.testing.assert_frame_equal(both, again)
    both = add_synthetic(both, make(metadata="missing", out="ba", direction="b2a"))
    assert share_missing(both, "Normal") == pytest.approx(share_missing(both, "Pneumonia"), abs=1/p)

@pytest.mark.parametrize("metadata", ["matched", "image-only"])
@pytest.mark.slow
def test_a_model_trains_on_both(rows, make, tmp_path, metadata):
    both = add_synthetic(rows, make(24, metadata=metadata))
    dls = RadiographDataLoaders.from_df(both, tmp_path, size=48, bs=8, seed=0)
    assert len(dls.train_ds) == (rows["split"] == "train").sum() + 24
    learn = fusion_learner(dls, "test_resnet", weights="none")
    with learn.no_logging(): learn.fit(1)
    assert np.isfinite(learn.validate()[0])
    made = dls.metadata(both[both["synthetic"]]).isnan()
    assert made.all() if metadata == "image-only" else not made.any()

# bad input, and folders

@pytest.mark.parametrize("change, message", [
    (dict(metadata="none"), "metadata='none' is not known; use matched"), (dict(direction="ab"), "neither 'a2b'"),
    (dict(cont_names=("weight",)), "no column weight"), (dict(cat_names=("seed",), cont_names=()), "seed can't name")])
def test_settings_that_are_refused(rows, make, change, message):
    with pytest.raises(ValueError, match=message): make(table=rows.assign(seed="1"), **change)

def test_one_class_in_train_is_refused(rows, make):
    kept = rows[(rows["split"] != "train") | (rows["label"] == "Normal")]
    with pytest.raises(ValueError, match="one class"): make(table=kept)

def test_other_files_are_not_overwritten_and_an_earlier_synthesis_is(make, tmp_path):
    (tmp_path/"out").mkdir()
    (tmp_path/"out"/"notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="did not make"): make()
    assert [o.name for o in (tmp_path/"out").iterdir()] == ["notes.txt"]
    (tmp_path/"out"/"notes.txt").unlink()
    make(7)
    assert len(list((tmp_path/"out").glob("*.png"))) == 7
    make(5, seed=1)
    assert len(list((tmp_path/"out").glob("*.png"))) == 5 and len(read_manifest(tmp_path/"out")) == 5

def test_an_interrupted_synthesis_leaves_the_earlier_one_whole(rows, make, tmp_path):
    class Broken(Fade):
        def translate(self, pixels, direction):
            if self.batches: raise KeyboardInterrupt
            return super().translate(pixels, direction)
    before = make()
    with pytest.raises(KeyboardInterrupt): make(gan=Broken(rows), bs=2, seed=1)
    assert [o.name for o in tmp_path.iterdir()] == ["out"]
    pd.testing.assert_frame_equal(read_manifest(tmp_path/"out"), before)
    assert (png(before) == resynthesise(Fade(), before)).all()

# the figure

def test_figure_shows_each_class_real_and_synthetic_and_says_what_was_made_from_what(rows, make):
    ab, ba = make(out="ab"), make(12, out="ba", direction="b2a", augment=True)
    fig = plot_synthetic(rows, ab, ba, n=2)
    titles = ["real Normal", "real Pneumonia", "synthetic Normal", "synthetic Pneumonia"]
    assert [o.get_title() for o in fig.axes] == titles + [""]*4
    shown = [np.asarray(o.images[0].get_array()) for o in fig.axes]
    caption = fig.get_supxlabel().splitlines()
    assert len(caption) == 4
    for line, i, synth in zip(caption, (2, 6, 3, 7), (ba, ba, ab, ab)):
        row = synth[synth["image"] == line.split()[2].rstrip(":")].iloc[0]
        assert f"made from {row['source_image']}" in line and line.startswith(f"synthetic {row['label']}")
        np.testing.assert_array_equal(shown[i], np.asarray(Image.open(row["file"])))
        np.testing.assert_array_equal(shown[i - 3 if synth is ab else i - 1],
                                      RadiographCache([row["source_file"]], 32)[row["source_file"]])

def test_figure_without_synthetic_normals_has_three_panels_and_a_seed(rows, make):
    ab = make()
    one, two, other = (plot_synthetic(rows, ab, seed=s) for s in (0, 0, 5))
    assert [o.get_title() for o in one.axes] == ["real Normal", "real Pneumonia", "synthetic Pneumonia"]
    assert one.get_supxlabel() == two.get_supxlabel() != other.get_supxlabel()
