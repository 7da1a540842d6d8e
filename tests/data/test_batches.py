import random
import numpy as np, pytest, torch
from PIL import Image
from fastai.vision.all import AffineCoordTfm, Transform, aug_transforms
from cxr_fastai.data.batches import LabelTransform, RadiographTransform, training_only
from cxr_fastai.arms import POLICIES
from cxr_fastai.data.metadata import MetadataTransform
from cxr_fastai.data.show import TensorRadiograph
from cxr_fastai.cohort.sampling import split_patients
from cxr_fastai.data.loaders import RadiographDataLoaders, radiograph_tfms
from cxr_fastai.gan.unpaired import unpaired_tfms
from cxr_fastai.cohort.radiograph import read_radiograph
from conftest import SIDE, make_rows

def make(rows, path, **kwargs):
    return RadiographDataLoaders.from_df(rows, path, **dict(size=SIDE, bs=8, tfms=[]) | kwargs)

def test_one_row_or_many_give_the_same_pixels_and_labels(rows):
    pixels, label = RadiographTransform(SIDE), LabelTransform(["Normal", "Pneumonia"])
    some = rows.iloc[:5]
    assert torch.equal(pixels(some), torch.stack([pixels(o) for _, o in some.iterrows()]))
    assert label(some).tolist() == [int(label(o)) for _, o in some.iterrows()]
    assert [label.decode(o) for o in label(some)] == some["label"].tolist()

def test_the_item_path_gives_the_batch_paths_bits(rows, tmp_path):
    by_batch, by_item = make(rows, tmp_path), make(rows, tmp_path)
    by_item.add_tfms([Transform(lambda o: o)], "after_item")
    for a, b in zip(by_batch.valid, by_item.valid):
        assert [type(o) for o in a] == [type(o) for o in b] and all(torch.equal(x, y) for x, y in zip(a, b))

def test_metadata_is_encoded_once_an_epoch_and_knows_its_rows(rows, tmp_path, monkeypatch):
    sizes, own = [], MetadataTransform._words
    def words(self, rows, name):
        sizes.append(len(rows))
        return own(self, rows, name)
    monkeypatch.setattr(MetadataTransform, "_words", words)
    policy = next(k for k, o in POLICIES.items() if o.image_only)
    at = (rows["split"] == "train") & (np.arange(len(rows)) % 4 == 0)
    some = rows.assign(metadata_policy=np.where(at, policy, ""))
    dls = make(some, tmp_path, use="metadata")
    for epoch in 1, 2:
        for x, y in dls.train: assert (x.only == x.isnan().all(1).numpy()).all() and len(x) == len(y) == 8
        assert sizes == [len(dls.train_ds)]*2*epoch # of sex, and of view
    assert any(x.only.any() for x, _ in dls.train)

@pytest.mark.parametrize("num_workers", [0, 1])
def test_who_is_image_only_is_known_of_a_workers_batches_too(rows, tmp_path, num_workers):
    dls = make(rows, tmp_path, use="metadata", num_workers=num_workers)
    assert dls.valid.one_batch()[0].only.tolist() == [False]*8

def test_augmentation_gives_fastais_bits_without_asking_the_device():
    x = TensorRadiograph(torch.rand(4, 1, SIDE, SIDE))
    for tfms in radiograph_tfms(), unpaired_tfms(), aug_transforms(max_warp=.3):
        theirs = next(o for o in tfms if isinstance(o, AffineCoordTfm))
        out = []
        for tfm in theirs, training_only(theirs):
            torch.manual_seed(0), random.seed(0)
            out.append(tfm(x.clone(), split_idx=0))
        assert torch.equal(*out) and not torch.equal(out[0], x) and type(out[1]) is type(out[0])
    sized = aug_transforms(size=32)[0]
    assert training_only(sized) is sized and training_only(len) is len

def test_a_transform_of_the_list_of_items_runs_too(rows, tmp_path):
    dls = make(rows, tmp_path, use="metadata")
    dls.add_tfms([Transform(lambda items: items[:2])], "before_batch")
    assert [len(b[0]) for b in dls.train] == [2] * 5

def test_more_rows_a_batch_than_rows_is_refused_with_both_numbers(rows, tmp_path):
    n = (rows["split"] == "train").sum()
    with pytest.raises(ValueError, match=f"bs=64 is more than the {n} training rows"): make(rows, tmp_path, bs=64)
    assert len(make(rows, tmp_path, bs=int(n))) == 2

@pytest.mark.parametrize("cache", [True, False])
def test_the_white_of_16_bit_films_is_the_sets_with_or_without_a_cache(tmp_path, cache):
    own = split_patients(make_rows(tmp_path, 24), seed=0)
    for i, f in enumerate(own["file"]):
        gray = np.asarray(Image.open(f)).astype(np.uint16)
        Image.fromarray(gray * (3 if i else 16)).save(f) # one film needs 12 bits, the others 10
    dls = RadiographDataLoaders.from_df(own, size=SIDE, bs=4, use="image", cache=tmp_path/"cache" if cache else False,
                                        num_workers=0)
    tfm = dls.radiograph
    assert tfm.white == 12
    for f in own["file"][:3]:
        np.testing.assert_array_equal(tfm(own[own["file"] == f])[0, 0].numpy(), read_radiograph(f, SIDE, 12))
