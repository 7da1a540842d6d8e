import random
from pathlib import Path
import numpy as np, pytest, torch
from PIL import Image
from cxr_fastai.cohort.leaks import LeakError
from cxr_fastai.gan.unpaired import UnpairedDataLoaders, unpaired_tfms
from conftest import SIDE

def make(rows, **kwargs): return UnpairedDataLoaders.from_df(rows, **dict(size=SIDE, bs=2, augment=[]) | kwargs)
def epochs(dls, n): return [dls.train.get_idxs() for _ in range(n)]

def test_only_training_rows_are_loaded(rows):
    dls, train = make(rows), rows[rows.split == "train"]
    assert set(dls.train_ds.a.image) == set(train.image[train.label == "Normal"])
    assert set(dls.train_ds.b.image) == set(train.image[train.label == "Pneumonia"])
    assert set(dls.patients) == set(train.patient_id.astype(str))
    assert not set(dls.patients) & set(rows.patient_id[rows.split != "train"].astype(str))

def test_batches_hold_images_of_their_domains_training_rows_only(rows):
    dls = make(rows)
    pixels = lambda part: {o.numpy().tobytes() for o in dls.train_ds.tfm(part)}
    own = [pixels(rows[(rows.split == "train") & (rows.label == o)]) for o in ("Normal", "Pneumonia")]
    met = [set(), set()]
    for batch in [b for _ in range(4) for b in dls.train]:
        for found, x in zip(met, batch): found |= {((o + 1)*127.5).round().byte().numpy().tobytes() for o in x}
    assert met[0] <= own[0] and met[1] == own[1] and not pixels(rows[rows.split != "train"]) & (met[0] | met[1])

@pytest.mark.parametrize("workers", [0, 2])
def test_workers_change_nothing(rows, workers):
    dls = make(rows)
    other = dls.train.new(num_workers=workers)
    other.rng = random.Random(0)
    for x, y in zip(dls.train, other, strict=True): assert torch.equal(x[0], y[0]) and torch.equal(x[1], y[1])

def test_an_epoch_takes_each_of_the_larger_domain_once_and_draws_the_smaller_in_turns(rows):
    dls = make(rows)
    n, m = len(dls.train_ds.a), len(dls.train_ds.b)
    assert n > m
    for pairs in epochs(dls, 5):
        a, b = zip(*pairs)
        assert sorted(a) == list(range(n)) and {b.count(o) for o in range(m)} <= {n//m, -(-n//m)}

def test_b_is_drawn_anew_each_epoch_and_seeded(rows):
    one, same, other = (epochs(make(rows, seed=o), 3) for o in (0, 0, 1))
    assert one == same and one != other
    order = lambda pairs: [j for _, j in sorted(pairs)]
    assert order(one[0]) != order(one[1]) != order(one[2])

def test_batches_are_the_rows_pixels_in_minus_one_to_one(rows):
    dls = make(rows)
    a, b = dls.valid.one_batch()
    assert a.shape == b.shape == (2, 1, SIDE, SIDE) and a.dtype == torch.float32
    raw = dls.train_ds.tfm.encodes(dls.train_ds.b.iloc[:2])
    assert torch.equal(b.as_subclass(torch.Tensor), (raw.as_subclass(torch.Tensor).float()/255)*2 - 1)
    assert all(o.min() >= -1 and o.max() <= 1 for batch in make(rows, augment=None).train for o in batch)

def test_films_are_never_flipped_unless_asked(rows):
    plain = make(rows, bs=8).valid.one_batch()[0]
    changed = unpaired_tfms()
    assert not any("Flip" in type(o).__name__ for o in changed)
    dls = make(rows, bs=8, augment=None)
    pipe = dls.train.after_batch
    pipe.split_idx = 0
    torch.manual_seed(0)
    raw = dls.train_ds.tfm.encodes(dls.train_ds.a.iloc[:8])
    out = torch.stack([pipe((raw, raw))[0].as_subclass(torch.Tensor) for _ in range(10)])
    like = lambda x, y: torch.corrcoef(torch.stack([x.flatten(), y.flatten()]))[0, 1]
    assert all(like(o, plain) > like(o.flip(-1), plain) for o in out) and not torch.equal(out[0], out[1])

def test_augment_opens_it_up(rows):
    from fastai.vision.all import Flip
    dls = make(rows, bs=4, augment=[Flip(p=1.)])
    a, plain = dls.train.after_batch, dls.train_ds.tfm.encodes(dls.train_ds.a.iloc[:4])
    a.split_idx = 0
    flipped = a((plain, plain))[0].as_subclass(torch.Tensor)
    torch.testing.assert_close(flipped, (plain.as_subclass(torch.Tensor).float()/127.5 - 1).flip(-1), atol=.02, rtol=0)

def test_pairs_are_shown(rows):
    fig = make(rows).show_batch()
    assert [o.get_title() for o in fig.axes[:2]] == ["A", "B"] and len(fig.axes) == 4
    shown = fig.axes[0].images[0]
    assert shown.get_clim() == (0, 255) and shown.get_array().max() > 100 # gray levels again, not -1..1

@pytest.mark.parametrize("change, error, text", [
    (dict(size=30), ValueError, "multiples of 4"), (dict(size=20), ValueError, "from 24 up"),
    (dict(bs=500), ValueError, "bs=500 is more than the")])
def test_settings_that_can_not_work_are_refused(rows, change, error, text):
    with pytest.raises(error, match=text): make(rows, **change)

def test_tables_that_can_not_work_are_refused(rows):
    with pytest.raises(ValueError, match="no column 'split'"): make(rows.drop(columns="split"))
    with pytest.raises(ValueError, match="no training row of Pneumonia"):
        make(rows[(rows.split != "train") | (rows.label == "Normal")])
    with pytest.raises(ValueError, match="synthetic rows"): make(rows.assign(synthetic=True))
    assert make(rows.assign(synthetic=np.nan))
    with pytest.raises(ValueError, match="Categorical"): make(rows.assign(label=rows.label.astype(str)))

def test_a_patient_or_an_image_on_two_sides_is_a_leak(rows, tmp_path):
    twice = rows.copy()
    twice.loc[twice.index[twice.split == "test"][0], "patient_id"] = twice.patient_id[twice.split == "train"].iloc[0]
    with pytest.raises(LeakError, match="patient_id"): make(twice)
    copies = rows.copy()
    copies.loc[copies.index[copies.split == "test"][0], "file"] = copies.file[copies.split == "train"].iloc[0]
    with pytest.raises(LeakError): make(copies)

def test_what_is_loaded_later_is_checked_again(rows):
    dls = make(rows)
    dls.train_ds.a = rows[rows.label == "Normal"]
    with pytest.raises(LeakError, match="training rows only"): dls.check_leaks()

def test_a_near_duplicate_on_two_sides_is_a_leak(rows, tmp_path):
    copies, (train, test) = rows.copy(), (rows.index[rows.split == o][0] for o in ("train", "test"))
    pixels = np.asarray(Image.open(rows.file[train])).astype(int) + 3
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(tmp_path/"brighter.png")
    copies.loc[test, "file"] = str(tmp_path/"brighter.png")
    with pytest.raises(LeakError, match="near-duplicates are on two sides"): make(copies)

def test_rows_that_only_claim_to_be_training_ones_are_a_leak(rows):
    dls = make(rows)
    dls.train_ds.b = rows[(rows.split == "test") & (rows.label == "Pneumonia")].assign(split="train")
    with pytest.raises(LeakError, match="'patient_id' has values on two sides"): dls.check_leaks()

def test_images_are_found_in_the_path_where_the_table_has_no_files(rows):
    without = make(rows.drop(columns="file"), path=Path(rows.file[0]).parent)
    assert torch.equal(without.valid.one_batch()[1], make(rows).valid.one_batch()[1])

def test_what_an_exported_learner_keeps_has_no_row(rows):
    words = rows.assign(patient_id=rows.patient_id.astype("category"))
    dls = make(words, seed=3).new_empty()
    assert len(dls.train_ds) == len(dls.valid_ds) == len(dls.train) == 0 and dls.rows is None
    assert (dls.size, dls.seed, dls.vocab) == (SIDE, 3, ("Normal", "Pneumonia"))
    assert list(dls.train_ds.a) == list(words) and dls.train_ds.a.patient_id.dtype == object # Categoricals keep words
    with pytest.raises(ValueError, match="no rows to train on"): dls.check_leaks()
