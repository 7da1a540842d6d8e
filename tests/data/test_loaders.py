import random
from pathlib import Path
import numpy as np, pandas as pd, pytest, torch
from PIL import Image
from fastai.vision.all import DataLoaders, TensorCategory, Transform, set_seed
from cxr_fastai.cohort.leaks import LeakError
from cxr_fastai.data.metadata import TensorMetadata
from cxr_fastai.data.loaders import radiograph_block, RadiographDataLoaders
from cxr_fastai.data.show import TensorRadiograph
from conftest import SIDE, draw, make_rows
from layouts import lay_out

def make(rows, path, **kwargs):
    return RadiographDataLoaders.from_df(rows, path, **dict(size=SIDE, bs=8, tfms=[]) | kwargs)

@pytest.fixture
def own_rows(tmp_path, rows):
    "The session's table over image files of its own, which a test may delete."
    (tmp_path/"own").mkdir()
    copies = make_rows(tmp_path/"own")
    return rows.assign(file=copies["file"].to_numpy())

# pairing

def drawn(number): return number*number // 7 % 2

@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    "60 rows whose number stands in the corner pixel, in the age and, by a rule that no leak check knows, in the label."
    folder, rng = tmp_path_factory.mktemp("numbered"), np.random.default_rng(0)
    def one(i):
        image = draw(0, rng)
        image[0, 0] = i
        Image.fromarray(image).save(folder/f"{i}.png")
        return dict(image=f"{i}.png", file=str(folder/f"{i}.png"), patient_id=900 + i*37 % 61, age=i,
                    sex="FM"[i % 4 // 2])
    rows = pd.DataFrame([one(i) for i in rng.permutation(60)])
    label = pd.Categorical.from_codes(drawn(rows["age"]), ["even", "odd"], ordered=True)
    return rows.assign(label=label, split=np.repeat(["train", "valid", "test"], [40, 12, 8]))

class Negative(Transform):
    "An item transform: one that changes what it sees, so that a test can tell that it ran."
    def encodes(self, o:TensorRadiograph): return 255 - o

def numbers(dls, batch, negative=False):
    "The number in each of a batch's images, metadata and labels, after checking that all of a row agree."
    image, meta, label = batch
    assert (type(image), type(meta), type(label)) == (TensorRadiograph, TensorMetadata, TensorCategory)
    assert image.shape[1:] == (1, SIDE, SIDE) and label.dtype == torch.int64
    assert image.dtype == meta.dtype == torch.float32
    image, meta, label = (o.as_subclass(torch.Tensor) for o in batch)
    corner = (image[:, 0, 0, 0] * 255).round().long()
    number = 255 - corner if negative else corner
    lo, hi = dls.metadata.stats["age"]
    assert torch.equal((meta[:, -2] * (hi - lo) + lo).round().long(), number), "image and metadata of two patients"
    assert torch.equal(meta[:, 1].long(), number % 4 // 2), "another patient's sex"
    assert torch.equal(label, drawn(number)), "another patient's label"
    return number.tolist()

@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("item_tfms", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_one_row_feeds_image_metadata_and_label(numbered, tmp_path, cache, workers, item_tfms, weighted):
    dls = make(numbered, tmp_path, cat_names=["sex"], cache=cache, num_workers=workers, weighted=weighted)
    if item_tfms: dls.add_tfms([Negative()], "after_item")
    train, valid = ([numbers(dls, b, item_tfms) for b in dl] for dl in dls)
    own = {side: numbered.loc[numbered["split"] == side, "age"].tolist() for side in ("train", "valid", "test")}
    assert [len(o) for o in train] == [8] * 5 and sum(train, []) != own["train"]
    if weighted: assert set(sum(train, [])) <= set(own["train"])
    else: assert sorted(sum(train, [])) == sorted(own["train"])
    assert sum(valid, []) == own["valid"]
    test = dls.test_dl(numbered[numbered["split"] == "test"], with_labels=True, bs=3)
    assert sum((numbers(dls, b, item_tfms) for b in test), []) == own["test"]

# inputs and sides

@pytest.mark.parametrize("use,types", [
    ("both", [TensorRadiograph, TensorMetadata]), ("image", [TensorRadiograph]), ("metadata", [TensorMetadata])])
def test_use_names_the_inputs(rows, tmp_path, use, types):
    dls = make(rows, tmp_path, use=use)
    *inputs, label = dls.one_batch()
    assert [type(o) for o in inputs] == types and type(label) is TensorCategory
    assert dls.use == use and dls.n_inp == len(types) and dls.c == 2 and list(dls.vocab) == ["Normal", "Pneumonia"]
    assert (dls.radiograph is None) == (use == "metadata")
    assert (dls.metadata is None) == (use == "image")

def test_metadata_alone_needs_no_image_files(rows, tmp_path):
    dls = make(rows.drop(columns="file"), tmp_path/"nowhere", use="metadata")
    assert len(list(dls.train)) == (rows["split"] == "train").sum() // 8

def test_images_are_found_in_the_path_where_the_table_has_no_files(rows, tmp_path):
    without = make(rows.drop(columns="file"), Path(rows["file"][0]).parent)
    assert torch.equal(without.valid.one_batch()[0], make(rows, tmp_path).valid.one_batch()[0])

def test_pixels_are_the_files_own_from_0_to_1(rows, tmp_path):
    x = make(rows, tmp_path, use="image").valid.one_batch()[0]
    files = rows.loc[rows["split"] == "valid", "file"]
    for image, file in zip(x, files):
        np.testing.assert_allclose(image[0] * 255, np.asarray(Image.open(file)), atol=1e-4)

def test_test_rows_are_cached_and_never_loaded(rows, tmp_path):
    dls = make(rows, tmp_path, weighted=True)
    test = set(rows.loc[rows["split"] == "test", "file"])
    assert test and all(f in dls.radiograph.cache for f in test)
    assert not test & {*dls.train_ds.items["file"], *dls.valid_ds.items["file"]}
    assert set(dls.train_ds.items["split"]) == {"train"} and set(dls.valid_ds.items["split"]) == {"valid"}
    assert set(dls.test_rows["file"]) == test

@pytest.mark.parametrize("workers", [0, 2])
def test_after_decoding_the_files_are_not_read_again(own_rows, tmp_path, workers):
    dls = make(own_rows, tmp_path, num_workers=workers)
    want = [b[0] for b in dls.valid]
    for f in own_rows["file"]: (tmp_path/"own"/f).unlink()
    assert all(torch.equal(a, b[0]) for a, b in zip(want, dls.valid)) and len(list(dls.train)) > 4
    assert len(list(dls.test_dl(own_rows[own_rows["split"] == "test"]))) > 1

def test_without_a_cache_files_are_read_at_every_use_and_none_is_kept(own_rows, tmp_path):
    dls = make(own_rows, tmp_path, cache=False, num_workers=0)
    assert dls.radiograph.cache is None
    dls.one_batch()
    for f in own_rows["file"]: (tmp_path/"own"/f).unlink()
    with pytest.raises(ValueError, match="does not exist"): dls.one_batch()

def test_cache_may_be_a_folder(rows, tmp_path):
    make(rows, tmp_path, cache=tmp_path/"kept").one_batch()
    assert list((tmp_path/"kept").glob("*/pixels.u8"))

# shuffling, seeds, weights

def first_rows(dls, n=3):
    "Which rows come in the first `n` batches: their metadata, as no two patients share it."
    return torch.cat([b[0] for _, b in zip(range(n), dls.train)])

def test_the_seed_of_from_df_fixes_the_batches_and_nothing_else_does(rows, tmp_path):
    a = make(rows, tmp_path, use="metadata", seed=5)
    first, second = first_rows(a), first_rows(a)
    set_seed(99)
    b = make(rows, tmp_path, use="metadata", seed=5)
    random.random(), torch.rand(3), np.random.rand(3)
    assert torch.equal(first, first_rows(b)) and torch.equal(second, first_rows(b)) and not torch.equal(first, second)
    assert not torch.equal(first, first_rows(make(rows, tmp_path, use="metadata", seed=6)))

def test_weighted_draws_both_classes_equally_often_and_by_the_seed(rows, tmp_path):
    def labels(**kwargs):
        dls = make(rows, tmp_path, use="metadata", **kwargs)
        return torch.cat([b[-1] for _ in range(40) for b in dls.train]).float()
    plain, drawn = labels(), labels(weighted=True)
    assert plain.mean() < .4 and abs(drawn.mean() - .5) < .04 # sd .012
    assert torch.equal(drawn, labels(weighted=True)) and not torch.equal(drawn, labels(weighted=True, seed=1))

def test_weighted_leaves_valid_as_it_is(rows, tmp_path):
    a, b = (torch.cat([b[0] for b in make(rows, tmp_path, use="metadata", weighted=o).valid]) for o in (True, False))
    assert torch.equal(a, b) and len(a) == (rows["split"] == "valid").sum()

# augmentation

def test_augmentation_moves_and_relights_but_never_flips(rows, tmp_path):
    dls = make(rows, tmp_path, use="image", tfms=None)
    half = torch.zeros(200, 1, SIDE, SIDE, dtype=torch.uint8)
    half[..., :SIDE//2] = 200 # bright on the left
    dls.train.after_batch.split_idx = 0
    out = dls.train.after_batch((TensorRadiograph(half), TensorCategory(torch.zeros(200, dtype=torch.long))))[0]
    assert (out[..., :SIDE//2].mean((1, 2, 3)) > out[..., SIDE//2:].mean((1, 2, 3)) + .3).all()
    assert len(out.flatten(1).unique(dim=0)) > 150

def test_training_batches_are_augmented_and_others_are_not(rows, tmp_path):
    plain, moved = (make(rows, tmp_path, use="image", tfms=o, seed=1) for o in ([], None))
    assert not torch.allclose(plain.one_batch()[0], moved.one_batch()[0], atol=.02)
    a, b = plain.valid.one_batch()[0], moved.valid.one_batch()[0]
    torch.testing.assert_close(a, b, atol=1e-5, rtol=0)

# refusals

@pytest.mark.parametrize("side", ["train", "valid"])
def test_one_class_on_a_side_is_refused(rows, tmp_path, side):
    some = rows[(rows["split"] != side) | (rows["label"] == "Normal")]
    with pytest.raises(ValueError, match=f"The {side} rows hold {{'Normal': \\d+, 'Pneumonia': 0}}: both classes are"):
        make(some, tmp_path)
    with pytest.raises(ValueError, match=f"The {side} rows hold"): make(rows[rows["split"] != side], tmp_path)

def test_tables_that_nothing_can_be_trained_on_are_refused(rows, tmp_path):
    for weighted in (False, True):
        with pytest.raises(ValueError, match="no column 'split'.*split_patients"):
            make(rows.drop(columns="split"), tmp_path, weighted=weighted)
        with pytest.raises(ValueError, match="need a column 'label'"):
            make(rows.drop(columns="label"), tmp_path, weighted=weighted)
    with pytest.raises(ValueError, match="Categorical"): make(rows.assign(label=rows["label"].astype(str)), tmp_path)
    unknown = rows.assign(label=rows["label"].where(rows.index != 3))
    with pytest.raises(ValueError, match=f"1 rows have no label \\({rows['image'][3]}\\)"): make(unknown, tmp_path)
    with pytest.raises(ValueError, match="use='all' is not known"): make(rows, tmp_path, use="all")
    with pytest.raises(ValueError, match="No metadata column weight"): make(rows, tmp_path, cont_names=["weight"])
    with pytest.raises(FileNotFoundError, match="1 of 80 radiographs do not exist"):
        make(rows.assign(file=rows["file"].where(rows.index != 3, str(tmp_path/"gone.png"))), tmp_path)

def test_leaks_are_refused_before_anything_is_loaded(rows, tmp_path, own_rows):
    train, valid = (rows.index[rows["split"] == o] for o in ("train", "valid"))
    shared = rows.assign(patient_id=rows["patient_id"].where(rows.index != valid[0], rows["patient_id"][train[0]]))
    with pytest.raises(LeakError, match=rows["image"][valid[0]]): make(shared, tmp_path)
    with pytest.raises(LeakError, match="label"): make(rows, tmp_path, cat_names=["label"])
    copy = Image.open(own_rows["file"][train[0]]).point(lambda o: o * .97)
    copy.save(own_rows["file"][valid[0]])
    with pytest.raises(LeakError, match="near-duplicates"): make(own_rows, tmp_path)
    assert make(own_rows, tmp_path, use="metadata").one_batch() # no image is looked at

def test_leak_check_looks_at_what_is_loaded_now(rows, own_rows, tmp_path):
    dls = make(rows, tmp_path)
    dls.check_leaks()
    train = rows[rows["split"] == "train"]
    dls.valid = dls.test_dl(train.iloc[:5], with_labels=True)
    with pytest.raises(LeakError, match=train["image"].iloc[0]): dls.check_leaks()
    others = own_rows[own_rows["split"] == "valid"]
    others = others.assign(patient_id=others["patient_id"] + 500, image="new_" + others["image"])
    dls.valid = dls.test_dl(others, with_labels=True) # other patients, of whom no image was cached
    dls.check_leaks()
    copy = others.assign(file=[str(tmp_path/f"copy{i}.png") for i in range(len(others))])
    for a, b in zip(train["file"], copy["file"]): Image.open(a).save(b)
    dls.valid = dls.test_dl(copy, with_labels=True)
    with pytest.raises(LeakError, match="near-duplicates"): dls.check_leaks()

def test_a_test_row_in_training_is_a_leak(rows, tmp_path):
    dls = make(rows, tmp_path)
    dls.train_ds.items = rows[rows["split"] == "test"]
    with pytest.raises(LeakError): dls.check_leaks()

# new patients

def test_test_dl_takes_tables_rows_and_lists_in_their_order(rows, tmp_path):
    dls = make(rows, tmp_path)
    test = rows[rows["split"] == "test"].sample(frac=1, random_state=0)
    want = torch.cat([b[0] for b in dls.test_dl(test)])
    for given in (test.drop(columns=["label", "split", "patient_id"]), test.to_dict("records"),
                  [row for _, row in test.iterrows()], test.assign(image=test["file"]).drop(columns="file")):
        batches = list(dls.test_dl(given, bs=5))
        assert torch.equal(torch.cat([b[0] for b in batches]), want) and all(len(b) == 2 for b in batches)
    for row in (test.iloc[0], dict(test.iloc[0])): assert torch.equal(dls.test_dl(row).one_batch()[0], want[:1])

def test_test_dl_needs_no_metadata_and_says_what_is_unknown(rows, tmp_path):
    dls = make(rows, tmp_path)
    test = rows[rows["split"] == "test"]
    _, meta = dls.test_dl(test[["file"]]).one_batch()
    missing = dls.metadata.missing.float()
    assert torch.equal(meta, missing.expand_as(meta))
    with pytest.warns(UserWarning, match="view: lateral not among the training words") as seen:
        _, meta = dls.test_dl(test[["file", "age"]].assign(view="lateral")).one_batch()
    assert len(seen) == 1 and (meta[:, 6] == 1).all() and (meta[:, 3] == 1).all()

def test_synthetic_rows_may_be_predicted_and_never_scored_on(rows, tmp_path):
    dls = make(rows, tmp_path)
    made = rows[rows["split"] == "train"].assign(synthetic=[True] + [False]*((rows["split"] == "train").sum() - 1))
    assert len(dls.test_dl(made).dataset) == len(made)
    words = f"1 of these rows are synthetic and would be scored on: {made['image'].iloc[0]};"
    with pytest.raises(LeakError, match=words): dls.test_dl(made, with_labels=True)
    assert len(dls.test_dl(made.iloc[1:], with_labels=True).dataset) == len(made) - 1

@pytest.mark.parametrize("side", ["valid", "test"])
def test_synthetic_rows_outside_train_are_refused(rows, tmp_path, side):
    made = rows.assign(synthetic=rows.index == rows.index[rows["split"] == side][0])
    with pytest.raises(LeakError, match="1 synthetic rows are outside train"): make(made, tmp_path)

def test_test_dl_uses_the_training_statistics_and_keeps_nothing(rows, tmp_path):
    dls = make(rows, tmp_path)
    before = dict(dls.metadata.stats)
    _, meta = dls.test_dl([dict(file=rows["file"][0], age=99)]).one_batch()
    lo, hi = before["age"]
    assert meta[0, -2] == pytest.approx((99 - lo) / (hi - lo)) and dls.metadata.stats == before

def test_a_new_image_is_read_from_its_file(rows, own_rows, tmp_path):
    x, = make(rows, tmp_path, use="image").test_dl(own_rows.iloc[:3]).one_batch()
    np.testing.assert_allclose(x[0, 0] * 255, np.asarray(Image.open(own_rows["file"][0])), atol=1e-4)

def test_the_block_alone_gives_the_same_dataloaders(rows, tmp_path):
    dls = radiograph_block(size=SIDE, tfms=[]).dataloaders(rows, path=tmp_path, bs=8, num_workers=0)
    assert type(dls) is RadiographDataLoaders and isinstance(dls, DataLoaders) and dls.seed == 0
    assert all(torch.equal(a, b) for a, b in zip(dls.valid.one_batch(), make(rows, tmp_path).valid.one_batch()))

def test_fastais_arguments_pass_through(rows, tmp_path):
    dls = make(rows, tmp_path, val_bs=3, device="cpu")
    assert dls.valid.bs == 3 and dls.train.bs == 8 and dls.device == torch.device("cpu")
    assert dls.test_dl(rows.iloc[:2], device="cpu").one_batch()[0].device.type == "cpu"

def test_the_table_is_not_changed(rows, tmp_path):
    before = rows.copy()
    make(rows, tmp_path, weighted=True).check_leaks()
    pd.testing.assert_frame_equal(rows, before)

def test_what_is_predicted_is_not_resampled(rows, tmp_path):
    dls = RadiographDataLoaders.from_df(rows, tmp_path, size=SIDE, bs=8)
    seen = rows[rows["split"] == "valid"].iloc[:8]
    pixels = dls.radiograph(seen)
    assert torch.equal(dls.test_dl(seen).one_batch()[0].as_subclass(torch.Tensor),
                       pixels.as_subclass(torch.Tensor) / 255)
    train = dls.train.new(shuffle=False)
    assert not torch.equal(train.one_batch()[0], dls.test_dl(dls.train_ds.items.iloc[:8]).one_batch()[0])

@pytest.fixture(scope="module")
def own(tmp_path_factory):
    "A csv of one's own, and class folders, of the same drawn films."
    folder = tmp_path_factory.mktemp("own")
    (folder/"films").mkdir()
    drawn = make_rows(folder/"films")
    for name in "own_csv", "kermany": lay_out(name, drawn, folder/name)
    return folder

def test_a_csv_and_class_folders_are_split_by_patient_aloud(own, capsys):
    dls = RadiographDataLoaders.from_csv(own/"own_csv"/"films.csv", size=32, bs=8, seed=3)
    assert dls.metadata.names == ["Geschlecht", "Sex", "smoker", "Age", "weight"] and dls.seed == 3
    assert "Split, by patient, seed 3:" in capsys.readouterr().out
    sides = dls.train_ds.rows.groupby("patient_id")["split"].nunique()
    assert sides.eq(1).all() and len(dls.test_rows) > 10
    other = RadiographDataLoaders.from_folder(own/"own_csv", cat_names="smoker", cont_names="", size=32, bs=8, seed=4)
    assert other.metadata.names == ["smoker"]
    assert set(other.test_rows.image) != set(dls.test_rows.image)
    films = RadiographDataLoaders.from_folder(own/"kermany", use="image", size=32, bs=8)
    assert films.vocab == ("NORMAL", "PNEUMONIA")

@pytest.mark.parametrize("word, why", [
    ("valid_pct", "made by patient, another by another seed=; split_column="), ("valid_col", "split_column="),
    ("splitter", "made by patient"), ("train", "split_column='folder'"), ("fn_col", "image="), ("label_col", "label="),
    ("vocab", "positive= and negative="), ("batch_tfms", "tfms="), ("item_tfms", "size="), ("imgaes", "it takes")])
def test_fastais_words_are_answered_with_what_says_it_here(own, word, why):
    for door, data in ((RadiographDataLoaders.from_csv, own/"own_csv"/"films.csv"),
                       (RadiographDataLoaders.from_folder, own/"kermany")):
        with pytest.raises(TypeError, match=f"{door.__name__} doesn't take '{word}': .*{why}"): door(data, **{word: .2})
