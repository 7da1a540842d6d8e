import numpy as np, pytest, torch
from cxr_fastai.arms import parse_arm
from cxr_fastai.data.loaders import RadiographDataLoaders
from cxr_fastai.models.frozen import frozen_backbone
from cxr_fastai.models.predictions import predict_rows
from cxr_fastai.models.probe import check_probe, probe_learner, whole_learner
from cxr_fastai.trained.bundle import load_bundle, save_bundle

ARCH = "test_resnet.r160_in1k"

def loaders(rows, tmp_path, use="both", **kwargs):
    return RadiographDataLoaders.from_df(rows, tmp_path, size=32, bs=16, use=use, **kwargs)

def trained(dls, epochs=2, **kwargs):
    learn = probe_learner(dls, ARCH, weights="none", seed=1, **kwargs)
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(epochs, 1e-2)
    return learn

@pytest.mark.parametrize("use, fusion", [("image", "concat"), ("both", "concat"), ("both", "gated"), ("both", "film"),
                                         ("both", "logits")])
def test_a_probe_with_its_backbone_below_predicts_the_same(rows, tmp_path, use, fusion):
    dls = loaders(rows, tmp_path, use)
    probe = trained(dls, 1, fusion=fusion, precision="fp32")
    whole = whole_learner(probe, dls, "fp32")
    a, b = (predict_rows(o, rows)["probability"].to_numpy() for o in (probe, whole))
    assert np.abs(a - b).max() < 1e-5 and np.ptp(a) > 0
    loaded = load_bundle(save_bundle(whole, tmp_path/"bundle"))
    assert np.abs(predict_rows(loaded, rows)["probability"] - a).max() < 1e-5 and loaded.card["arch"] == ARCH

def test_only_the_head_learns(rows, tmp_path):
    learn = trained(loaders(rows, tmp_path))
    names = [k for k, _ in learn.model.named_parameters()]
    assert names and not any("backbone" in o for o in names)
    body = whole_learner(learn, loaders(rows, tmp_path)).model.backbone.state_dict()
    assert all(torch.equal(o, body[k]) for k, o in frozen_backbone(ARCH, "none", 32).state_dict().items())

def test_the_same_seed_gives_the_same_bits(rows, tmp_path):
    one, two = (predict_rows(trained(loaders(rows, tmp_path), views=2), rows)["probability"] for _ in range(2))
    assert one.equals(two)

def test_fine_tuning_goes_on_from_the_head(rows, tmp_path):
    dls = loaders(rows, tmp_path)
    probe = trained(dls)
    whole = whole_learner(probe, dls)
    head = whole.model.head.state_dict()
    assert all(torch.equal(o, head[k]) for k, o in probe.model.head.state_dict().items())
    body = [o.clone() for o in whole.model.backbone.parameters()]
    with whole.no_bar(), whole.no_logging(): whole.fine_tune(1)
    assert any(not torch.equal(a, b) for a, b in zip(body, whole.model.backbone.parameters()))

def test_views_are_of_training_alone(rows, tmp_path):
    dls = trained(loaders(rows, tmp_path), 1, views=3).dls
    dls.train.rng.seed(0)
    same = [torch.equal(x, y) for (x, *_), (y, *_) in zip(dls.valid, dls.valid)]
    assert all(same)
    some = dls.train_ds.items.head(16)
    plain, drawn = (o.tls[0].tfms(some) for o in (dls.valid_ds, dls.train_ds))
    assert plain.shape == drawn.shape == (16, plain.shape[1], 1, 1) and not torch.equal(plain, drawn)

def test_the_firewall_stands_before_a_probe_too(rows, tmp_path):
    from cxr_fastai.cohort.leaks import LeakError
    leaky = rows.copy()
    valid = leaky.index[leaky["split"] == "valid"][0]
    leaky.loc[valid, "patient_id"] = leaky.loc[leaky["split"] == "train", "patient_id"].iloc[0]
    with pytest.raises(LeakError): probe_learner(loaders(leaky, tmp_path), ARCH, weights="none")

@pytest.mark.parametrize("arm, views, said", [("real-meta+attention", 1, "attention has nowhere to look"),
    ("real+augment", 1, "'augment' changes nothing: give views=4"), ("real-meta+augment", 1, "augments nothing")])
def test_what_a_probe_would_train_as_another_arm_is_refused(arm, views, said):
    with pytest.raises(ValueError, match=said): check_probe(parse_arm(arm), "concat", views)

def test_what_it_can_train_is_not_refused():
    for o in "real", "meta", "real-meta+film", "real-synth-meta+1/8", "real+mixup": check_probe(parse_arm(o), "concat")
    check_probe(parse_arm("real+augment"), "concat", 4)
    check_probe(parse_arm("real"), "attention")
    with pytest.raises(ValueError, match="nowhere to look"): check_probe(parse_arm("real-meta"), "attention")
