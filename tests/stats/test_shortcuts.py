import numpy as np, pandas as pd, pytest
from PIL import Image
from conftest import SHARED, draw, needs_nih
from cxr_fastai.cohort.readers import read_nih
from cxr_fastai.cohort.rows import with_columns
from cxr_fastai.cohort.sampling import each_fold, split_paper, split_patients
from cxr_fastai.stats.scoring import METRICS
from cxr_fastai.stats.shortcuts import (Films, SHORTCUTS, against_shortcuts, file, shortcut_predictions,
    shortcut_tables, shortcut_verdict)

N = 150

def films(folder, change=lambda pixels, label, rng: pixels, suffix="png", n=N, seed=0):
    "Films that don't show the label, but by `change`."
    rng, label = np.random.default_rng(seed), np.arange(n) % 3 == 0
    for i in range(n): Image.fromarray(change(draw(0, rng), label[i], rng)).save(folder/f"{i:03}.{suffix}")
    rows = pd.DataFrame(dict(image=[f"{i:03}.{suffix}" for i in range(n)], patient_id=range(n),
                             sex=rng.choice(["F", "M"], n), view=rng.choice(["AP", "PA"], n),
                             age=rng.normal(50, 10, n).round()))
    rows["label"] = pd.Categorical.from_codes(label.astype(int), ["Normal", "Pneumonia"], ordered=True)
    return split_patients(rows.assign(file=[str(folder/o) for o in rows["image"]]), seed=0)

def areas(rows, size=48):
    "AUC and notes by probe."
    said, notes = shortcut_predictions(rows, size)
    test = said[said.side == "test"].groupby("arm")
    return {k: METRICS["rocauc"](o.label, o.probability) for k, o in test}, notes

def as_arm(said, name=None, arm="real", seeds=(0,)):
    "What a probe said, as if an arm had."
    own = said[said.arm == (name or said.arm.iloc[0])]
    return pd.concat([own.assign(backbone="net", arm=arm, seed=o) for o in seeds], ignore_index=True)

@pytest.fixture(scope="module")
def plain(tmp_path_factory): return films(tmp_path_factory.mktemp("plain"))

@pytest.fixture(scope="module")
def bright(tmp_path_factory):
    lighter = lambda x, label, rng: (x*.8 + 40*label).astype(np.uint8)
    return films(tmp_path_factory.mktemp("bright"), lighter)

def test_where_there_is_no_shortcut_none_is_found(plain):
    found, notes = areas(plain)
    assert list(notes) == list(SHORTCUTS) and set(found) == set(SHORTCUTS) - {"text"} # there is none
    assert notes["text"] == "all alike: there is nothing to tell films apart by"
    assert all(.2 < o < .8 for o in found.values()) and np.mean(list(found.values())) == pytest.approx(.5, abs=.12)
    assert notes["file"] == "all alike: width, height" and notes["thumbnail"] == ""

def test_another_brightness_is_a_shortcut(bright):
    found, _ = areas(bright)
    assert min(found[o] for o in ("thumbnail", "border", "outside")) > .9 and found["metadata"] < .75

@pytest.mark.parametrize("where, seen, unseen", [
    (np.s_[:2], {"border", "outside", "thumbnail"}, set()),
    (np.s_[14:-14, 14:-14], {"thumbnail"}, {"border", "outside"})])
def test_a_probe_sees_its_own_part(tmp_path, where, seen, unseen):
    def change(x, label, rng):
        x[where] = np.clip(x[where].astype(int) + 60*label, 0, 255)
        return x
    found, _ = areas(films(tmp_path, change))
    assert all(found[o] > .85 for o in seen) and all(found[o] < .75 for o in unseen)

def test_burnt_in_marks_are_a_shortcut(tmp_path):
    def marked(x, label, rng):
        "Thin strokes, anywhere, as many dark ones for the others: the mean brightness is the same."
        for _ in range(4):
            i, j = rng.integers(0, 40, 2)
            x[i:i + 6, j] = 255 if label else 0
        return x
    found, _ = areas(films(tmp_path, marked))
    assert found["text"] > .9 and found["border"] < .8

def test_sizes_and_kinds_of_files_are_a_shortcut(tmp_path):
    def larger(x, label, rng): return np.kron(x, np.ones((1 + label, 1), np.uint8))
    found, notes = areas(films(tmp_path, larger))
    assert found["file"] > .95 and notes["file"] == "all alike: width" and found["metadata"] < .75

def test_metadata_alone_with_what_is_missing_and_unknown(plain):
    hit = (plain.label == "Pneumonia").to_numpy()
    told = plain.assign(age=np.where(hit, np.nan, 50.), sex=np.where(plain.split == "test", "X", plain.sex))
    found, notes = areas(told)
    assert found["metadata"] > .95 and notes["metadata"] == "all alike: sex X, age"
    other = with_columns(plain.assign(code=hit*1), ["code"], [])
    assert areas(other)[0]["metadata"] > .95
    assert shortcut_predictions(with_columns(plain.copy(), [], []), 48)[1]["metadata"] == (
        "no probe: the table has no metadata column")

def test_what_can_not_be_probed_is_said(plain, tmp_path):
    table, notes = areas(plain.drop(columns="file"))
    assert set(table) == {"metadata"}
    assert notes["thumbnail"] == notes["file"] == "no probe: the table has no column 'file'"
    gone = plain.assign(file=plain.file.where(plain.index != 3, str(tmp_path/"no.png")))
    assert "1 of 150 radiographs do not exist" in areas(gone)[1]["border"]
    assert "no.png" in areas(gone)[1]["file"]
    assert all(o.startswith("no probe: the train rows are of one class") for o in areas(
        plain[(plain.split != "train") | (plain.label == "Normal")])[1].values())
    assert "no valid rows" in areas(plain[plain.split != "valid"])[1]["thumbnail"]

def test_films_that_are_all_alike_have_no_figure(plain, tmp_path):
    Image.new("L", (48, 48), 90).save(tmp_path/"gray.png")
    rows = plain.assign(file=str(tmp_path/"gray.png"), sex="F", view=None, age=np.nan)
    said, notes = shortcut_predictions(rows, 48)
    assert said.empty and all(o == "all alike: there is nothing to tell films apart by" for o in notes.values())
    arm = plain[plain.split != "train"].assign(backbone="net", arm="real", seed=0, side=plain.split, probability=.5)
    kept, shown = shortcut_tables(rows, arm.assign(label=(arm.label == "Pneumonia")*1, synthetic=False), 48)
    assert (shown["shortcut_table"].AUC == "-").all() and len(shown["shortcut_table"]) == 6
    assert kept["against_shortcuts"].empty and kept["shortcuts"].empty
    assert shortcut_verdict(kept["against_shortcuts"]) == ["No arm is held against a shortcut."]

def test_dicom_headers_give_the_size(tmp_path):
    pytest.importorskip("pydicom")
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = FileDataset("x", {}, file_meta=meta, preamble=b"\0"*128)
    ds.Rows, ds.Columns = 30, 20
    ds.save_as(tmp_path/"x.dcm")
    rows = pd.DataFrame(dict(file=[str(tmp_path/"x.dcm")]))
    assert np.exp(file(Films(rows, 16))[["width", "height"]]).round().to_numpy().tolist() == [[20, 30]]

def test_an_arm_that_does_not_beat_a_shortcut_is_named_with_it(bright):
    said, notes = shortcut_predictions(bright, 48)
    weak, strong = as_arm(said, "metadata", "real", (0, 1)), as_arm(said, "thumbnail", "real-meta", (0, 1))
    table = against_shortcuts(pd.concat([weak, strong, as_arm(said, "metadata", "meta")]), said)
    line = table.set_index(["arm", "shortcut"]).loc
    assert line["real", "thumbnail"].beats == "no" and line["real-meta", "metadata"].beats == "yes"
    assert line["real", "thumbnail"].high < 0 < line["real-meta", "metadata"].low
    assert ("meta", "metadata") not in table.set_index(["arm", "shortcut"]).index
    rule, told = shortcut_verdict(table) # a sentence a backbone, of each arm the best shortcut first
    assert "DeLong" in rule and told.startswith("net: Real (AUC") and "; Meta (AUC" in told
    assert "does not beat border only (AUC 1.000;" in told and ", nor 16 x 16 thumbnail (1.000), nor" in told
    best = against_shortcuts(strong, said[said.arm == "metadata"])
    assert shortcut_verdict(best)[0].startswith("Every arm beats every shortcut that could be probed.")
    with pytest.raises(ValueError, match="not asked about the same test rows"):
        against_shortcuts(strong[strong.image != strong.image[strong.side == "test"].iloc[0]], said)

def test_a_table_row_has_what_an_arm_has(bright):
    said, notes = shortcut_predictions(bright, 48)
    kept, shown = shortcut_tables(bright, as_arm(said), 48)
    table = shown["shortcut_table"].set_index("shortcut")
    assert list(table.columns) == ["AUC", "recall", "specificity", "recall_at_90", "specificity_at_90", "note"]
    assert "[" in table.loc["16 x 16 thumbnail", "recall_at_90"] and (kept["shortcut_scores"].seeds == 1).all()
    assert set(said.side) == {"valid", "test"} and len(said) == 5*(bright.split != "train").sum()
    kept = kept["shortcut_scores"].set_index(["arm", "metric"])["mean"]
    assert kept["border", "rocauc"] == pytest.approx(areas(bright)[0]["border"])

def test_the_order_of_rows_does_not_matter(bright):
    first, other = (shortcut_predictions(o, 48)[0].set_index(["arm", "image"]).probability
                    for o in (bright, bright.sample(frac=1, random_state=0)))
    assert np.allclose(first, other[first.index], atol=.02)

def test_the_papers_sides_and_a_class_of_few(bright):
    assert areas(split_paper(bright))[0]["thumbnail"] > .9
    ill = (bright.label == "Pneumonia").to_numpy()
    few = bright[~ill | (bright.split != "train") | (ill & (bright.split == "train")).cumsum().eq(1)]
    assert (few[few.split == "train"].label == "Pneumonia").sum() == 1
    assert 0 <= areas(few)[0]["thumbnail"] <= 1

def test_folds_have_probes_of_their_own(bright):
    splits = each_fold(bright.drop(columns="split"), 3, seed=0)
    said, notes = shortcut_predictions(splits, 48)
    test = said[(said.side == "test") & (said.arm == "border")]
    assert set(test.fold) == {0, 1, 2} and sorted(test.image) == sorted(bright.image)
    one = shortcut_predictions(splits[1], 48)[0].query("arm == 'border' and side == 'test'")
    assert np.allclose(one.probability, test[test.fold == 1].probability)
    kept, shown = shortcut_tables(splits, as_arm(said, "metadata"), 48)
    assert (kept["shortcut_scores"].n == N).all() and "[" in shown["shortcut_table"].AUC[0]
    assert kept["against_shortcuts"].set_index("shortcut").beats["border"] == "no"
    with pytest.raises(ValueError, match="not asked about the same test rows"):
        against_shortcuts(as_arm(said, "metadata"), said.assign(fold=(said.fold + 1) % 3))

@needs_nih
def test_real_films_have_shortcuts():
    folder = SHARED/"nih_sample"
    rows = read_nih(folder/"Data_Entry_2017_v2020.csv", images=folder)
    found, _ = areas(split_patients(rows[rows.label.notna()].reset_index(drop=True), seed=0), 64)
    assert .75 < found["thumbnail"] < .95 and found["file"] > .75
