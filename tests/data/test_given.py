import numpy as np, pandas as pd, pytest, torch
from PIL import Image
from fastai.vision.all import Callback, CutMix, FocalLossFlat, MixUp, accuracy
from cxr_fastai.trained.bundle import save_bundle
from cxr_fastai.trained.card import BundleError
from cxr_fastai.gan.cyclegan import cyclegan_learner
from cxr_fastai.data.loaders import RadiographDataLoaders, radiograph_block
from cxr_fastai.data.given import as_rows, read_picture
from cxr_fastai.cohort.radiograph import read_radiograph
from cxr_fastai.cohort.signs import RadiographError
from cxr_fastai.models.rivals import RowMixUp
from cxr_fastai.gan.unpaired import UnpairedDataLoaders
from cxr_fastai.models.learner import fusion_learner, image_learner, metadata_learner
from conftest import SIDE

def loaders(rows, path, **kwargs):
    return RadiographDataLoaders.from_df(rows, path, **dict(size=SIDE, bs=8, tfms=[]) | kwargs)
def fused(dls, **kwargs):
    return fusion_learner(dls, **dict(arch="test_resnet", weights="none", precision="fp32") | kwargs)

@pytest.fixture(scope="module")
def dls(rows, tmp_path_factory): return loaders(rows, tmp_path_factory.mktemp("given"))
@pytest.fixture(scope="module")
def learn(dls): return fused(dls)

def preds(learn, given):
    with learn.no_bar(): return learn.get_preds(dl=learn.dls.test_dl(given))[0]

# what may be predicted

def test_a_film_may_be_named_opened_or_held_in_memory(learn, rows):
    file = rows["file"][0]
    want, pixels = learn.predict(dict(image=file))[2], read_radiograph(file)
    arrays = pixels, pixels[None], torch.from_numpy(pixels), np.stack([pixels] * 3, 2)
    for o in file, Image.open(file), *arrays, rows[["file"]].iloc[0]:
        assert torch.equal(learn.predict(o)[2], want)
    assert torch.equal(learn.predict(pixels, age=50)[2], learn.predict(image=file, age=50)[2])

def test_a_list_of_files_pictures_and_rows_is_a_test_set(learn, rows):
    files = rows["file"][:3].tolist()
    want = preds(learn, [dict(image=o) for o in files])
    mixed = [files[0], Image.open(files[1]), dict(file=files[2])]
    for given in files, tuple(files), np.array(files), pd.Series(files), mixed, map(str, files):
        assert torch.equal(preds(learn, given), want)
    assert torch.equal(preds(learn, files[0]), preds(learn, files[:1]))

def test_a_picture_is_read_as_its_file_would_be(tmp_path):
    ramp = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (64, 1))
    exif = Image.Exif()
    exif[274] = 6
    for name, im in dict(deep=Image.fromarray(ramp.astype(np.uint16) * 16), colour=Image.fromarray(ramp).convert("RGB"),
                         turned=Image.fromarray(ramp)).items():
        im.save(tmp_path/f"{name}.png", **(dict(exif=exif) if name == "turned" else {}))
        file = tmp_path/f"{name}.png"
        assert np.array_equal(read_picture(Image.open(file), 32), read_radiograph(file, 32)), name
    for wrong in np.zeros((4, 4)), np.zeros((2, 4, 4), np.uint8), Image.new("F", (4, 4)), torch.zeros(1, 4, 4):
        with pytest.raises(RadiographError): read_picture(wrong, 32)

def test_what_is_no_row_is_refused_in_a_sentence(learn, rows):
    row = dict(rows.iloc[0])
    assert torch.equal(learn.predict(row)[2], learn.predict(rows.iloc[0])[2])
    for given, why in ((7, "A int is no row"), (row | dict(agee=5), "doesn't take 'agee'"), ([], "no row to predict"),
                       (dict(age=5), "needs image=FILE"),
                       (rows.iloc[:2], "predict takes one row")):
        with pytest.raises(ValueError, match=why): learn.predict(given)
    with pytest.raises(ValueError, match="name no image"): learn.dls.test_dl(rows[["age", "sex"]])
    with pytest.raises(ValueError, match="no column 'label'"):
        learn.dls.test_dl(rows.drop(columns="label"), with_labels=True)
    assert as_rows(rows) is rows

def test_images_may_be_named_by_numbers(rows, tmp_path):
    rows = rows.drop(columns="file").assign(image=range(len(rows)), old=rows["file"])
    for o in rows.itertuples(): (tmp_path/str(o.image)).write_bytes(open(o.old, "rb").read())
    dls = loaders(rows.drop(columns="old"), tmp_path)
    learn = fused(dls)
    learn.fit(1)
    assert preds(learn, dls.valid_ds.items).shape == (len(dls.valid_ds), 2)

# keywords

@pytest.mark.parametrize("given, hint", [
    (dict(batch_tfms=[]), "tfms="), (dict(item_tfms=[]), "squashed to size="), (dict(valid_pct=.2), "column 'split'"),
    (dict(sizee=3), "it takes")])
def test_no_keyword_of_dataloaders_is_ignored(rows, tmp_path, dls, given, hint):
    with pytest.raises(ValueError, match=f"doesn't take {list(given)[0]!r}.*{hint}"): loaders(rows, tmp_path, **given)
    with pytest.raises(TypeError, match=f"doesn't take {list(given)[0]!r}"):
        radiograph_block(size=SIDE).dataloaders(rows, **given)
    with pytest.raises(ValueError, match=f"doesn't take {list(given)[0]!r}"): dls.test_dl(rows, **given)

def test_those_of_fastai_that_are_taken_are_obeyed(rows, tmp_path):
    dls = loaders(rows, tmp_path, val_bs=3, drop_last=False)
    assert dls.valid.bs == 3 and len(dls.train) == -(-len(dls.train_ds) // 8) and dls.test_dl(rows, bs=5).bs == 5

@pytest.mark.parametrize("given, hint", [
    (dict(pretrained=True), "weights='imagenet'"), (dict(splitter=len), "model's own"),
    (dict(normalize=False), "normalised"), (dict(n_out=3), "classes"), (dict(custom_head=None), "ps="),
    (dict(surprise=1), "it takes"), (dict(wd_bn_bias=False), "opt_func=Adam")])
def test_no_keyword_of_a_learner_is_ignored(dls, given, hint):
    for make in image_learner, metadata_learner, fusion_learner:
        with pytest.raises(ValueError, match=hint): make(dls, **given)

def test_an_architecture_is_a_name(dls):
    from torchvision.models import resnet18
    with pytest.raises(ValueError, match="name of a timm model.*not 'resnet18'"): fused(dls, arch=resnet18)

def test_the_cyclegan_takes_no_keyword_for_nothing(rows, tmp_path):
    dls = UnpairedDataLoaders.from_df(rows, tmp_path, size=24)
    for given in dict(loss_func=len), dict(pretrained=True), dict(wd_bn_bias=True), dict(moms=(1, 1, 1)):
        with pytest.raises(ValueError, match="cyclegan_learner doesn't take"):
            cyclegan_learner(dls, ngf=2, ndf=2, n_blocks=1, **given)

def test_precision_is_not_changed_behind_the_models_back(learn):
    for o in learn.to_fp16, learn.to_bf16, learn.to_fp32, learn.to_non_native_fp16:
        with pytest.raises(ValueError, match="precision="): o()

# losses

def smooth(x, y, **kwargs): return torch.nn.functional.cross_entropy(x, y, label_smoothing=.2, **kwargs)

@pytest.mark.parametrize("loss", [torch.nn.CrossEntropyLoss(label_smoothing=.1), torch.nn.CrossEntropyLoss, smooth,
                                  FocalLossFlat(gamma=2.)], ids=["module", "class", "function", "fastai"])
def test_a_loss_is_honoured_and_gives_probabilities(dls, loss):
    learn = fused(dls, loss_func=loss, metrics=accuracy)
    learn.fit(1, cbs=MixUp)
    prob, y = learn.get_preds()
    torch.testing.assert_close(prob.sum(1), torch.ones(len(prob)))
    given = loss() if isinstance(loss, type) else loss
    own = learn.get_preds(act=lambda x: x)[0]
    assert learn.validate()[0] == pytest.approx(float(given(own, y.long())), rel=1e-4)

def test_a_loss_of_something_else_is_refused_before_training(dls, tmp_path):
    for wrong in torch.nn.BCEWithLogitsLoss(), torch.nn.CrossEntropyLoss(reduction="none"), lambda x, y: 3:
        with pytest.raises(ValueError, match="no mean loss of logits"): fused(dls, loss_func=wrong)
    class Sigmoid(FocalLossFlat):
        def activation(self, x): return x.sigmoid()
    with pytest.raises(BundleError, match="other probabilities than softmax"):
        save_bundle(fused(dls, loss_func=Sigmoid()), tmp_path/"b")

# mixing

class Look(Callback):
    order = 80 # after the mixing
    def __init__(self): self.seen = []
    def before_batch(self):
        if self.training: self.seen.append([o.clone().as_subclass(torch.Tensor) for o in self.xb])

@pytest.mark.parametrize("mix", [MixUp, CutMix])
def test_fastais_mixing_mixes_both_inputs_of_a_row_alike(dls, mix, monkeypatch):
    learn, look, cb = fused(dls), Look(), mix(1.)
    class Before(Look):
        order = -80
    before, loss = Before(), learn.loss_func
    learn.fit(1, cbs=[before, cb, look])
    assert learn.loss_func is loss and cb not in learn.cbs and len(learn.cbs) == len(fused(dls).cbs)
    for (image, meta), (mixed, words) in zip(before.seen, look.seen):
        assert mixed.shape == image.shape and words.shape == meta.shape and not torch.equal(mixed, image)
    image, meta = before.seen[-1]
    mixed, words = look.seen[-1]
    lam = cb.lam.to(image.dtype).expand(len(image)).as_subclass(torch.Tensor)
    partner = [next(j for j in range(len(image))
                    if torch.allclose(words[i], torch.lerp(meta[j], meta[i], lam[i]), atol=1e-5)
               and (torch.allclose(mixed[i], torch.lerp(image[j], image[i], lam[i]), atol=1e-5) if mix is MixUp else
                    ((mixed[i] == image[i]) | (mixed[i] == image[j])).all())) for i in range(len(image))]
    assert len(partner) == len(image)

def test_what_cannot_mix_is_refused_before_training_and_the_learner_stays_usable(rows, dls, tmp_path):
    class Own(MixUp): pass
    for learn, cb in (fused(dls), Own()), (metadata_learner(dls),
                                           None), (metadata_learner(loaders(rows, tmp_path, use="metadata")), CutMix()):
        if cb is None: continue
        before, loss = len(learn.cbs), learn.loss_func
        with pytest.raises(ValueError, match="two|cuts images"): learn.fit(1, cbs=cb)
        assert learn.loss_func is loss and len(learn.cbs) == before
        learn.fit(1)
    class Fail(Callback):
        def after_pred(self): raise RuntimeError("here")
    learn = fused(dls)
    with pytest.raises(RuntimeError): learn.fit(1, cbs=[RowMixUp(), Fail()])
    learn.fit(1)

def test_one_row_a_batch_is_refused_where_nothing_could_be_learnt(rows, tmp_path):
    learn = fused(loaders(rows, tmp_path, bs=1))
    with pytest.raises(ValueError, match="bs=1: batch norm"): learn.fit(1)
    vit = image_learner(loaders(rows, tmp_path, bs=1, use="image"), "test_vit", weights="none", precision="fp32")
    vit.fit(1)
    assert preds(learn, rows["file"][:2].tolist()).shape == (2, 2)
    for bs in 0, -3, 2.5:
        with pytest.raises(ValueError, match="is no number of rows"): loaders(rows, tmp_path, bs=bs)
