import numpy as np, pandas as pd, pytest, torch
import torch.nn.functional as F
from cxr_fastai.arms import RIVALS
from cxr_fastai.cohort.rows import positive
from cxr_fastai.data.loaders import RadiographDataLoaders
from cxr_fastai.models.learner import fusion_learner, image_learner
from cxr_fastai.models.rivals import LogitAdjusted, RowMixUp, duplicated, rival_dls, rival_learner, train_prior

def learner(rows, rival=None, make=image_learner, **kwargs):
    use = "image" if make is image_learner else "both"
    dls = RadiographDataLoaders.from_df(rows, size=32, bs=8, use=use, **rival_dls(rival))
    return rival_learner(make(dls, "test_resnet", weights="none", **kwargs), rival)

@pytest.mark.parametrize("make", [image_learner, fusion_learner])
@pytest.mark.parametrize("rival", RIVALS)
@pytest.mark.slow
def test_every_rival_trains_and_changes_the_bits(rows, rival, make):
    if rival == "duplicate": table = duplicated(rows, 9)
    else: table = rows
    plain, learn = learner(rows, make=make), learner(table, rival, make)
    for o in plain, learn:
        with o.no_bar(), o.no_logging(): o.fit_one_cycle(1, 1e-3)
    a, b = (o.model.state_dict()["head.1.weight" if make is image_learner else "head.head.1.weight"]
            for o in (plain, learn))
    assert torch.isfinite(b).all() and not torch.equal(a, b)

def test_class_weights_give_both_classes_one_say(rows):
    learn = learner(rows, "class-weights")
    hit = positive(learn.dls.train_ds.items)
    weight = learn.loss_func.func.weight
    assert float(weight[1]) * hit.sum() == pytest.approx(float(weight[0]) * (~hit).sum())
    assert float(weight[torch.tensor(hit * 1)].mean()) == pytest.approx(1)

def test_oversampling_draws_both_classes_equally_often(rows):
    dls = RadiographDataLoaders.from_df(rows, size=32, bs=8, use="image", **rival_dls("oversample"))
    drawn = np.array([dls.train.get_idxs() for _ in range(60)]).ravel()
    assert positive(rows[rows.split == "train"]).mean() < .4
    assert positive(dls.train_ds.items.iloc[drawn]).mean() == pytest.approx(.5, abs=.03)

def test_logit_adjustment_is_cross_entropy_of_shifted_logits_and_predicts_from_plain_ones():
    loss, out, y = LogitAdjusted(.2), torch.randn(9, 2), torch.randint(0, 2, (9,))
    assert torch.allclose(loss(out, y), F.cross_entropy(out + torch.tensor([.8, .2]).log(), y))
    assert torch.allclose(loss.activation(out), out.softmax(-1)) and loss.y_int
    none = LogitAdjusted(.2)
    none.reduction = "none"
    assert none(out, y).shape == (9,)

def test_logit_adjustment_learns_a_balanced_classifier():
    "Of one feature that says nothing: cross entropy learns the prior, the adjusted loss learns one half."
    y = (torch.arange(500) < 100).long()
    for loss, expected in (LogitAdjusted(.2), .5), (LogitAdjusted(.5), .2):
        bias = torch.zeros(2, requires_grad=True)
        opt = torch.optim.LBFGS([bias], max_iter=50)
        def step():
            opt.zero_grad()
            value = loss(bias.expand(500, 2), y)
            value.backward()
            return value
        opt.step(step)
        assert float(bias.softmax(0)[1]) == pytest.approx(expected, abs=1e-3)

class Caught:
    "A learner's batch, as RowMixUp meets it."
    def __init__(self, xb, yb): self.xb, self.yb = xb, yb

def test_mixup_mixes_image_metadata_and_label_of_one_partner_by_one_weight():
    torch.manual_seed(0)
    n = 64
    number = torch.arange(n).float()
    image, metadata = number.view(n, 1, 1, 1).expand(n, 1, 2, 2), number.view(n, 1).expand(n, 3)
    mix = RowMixUp(.4)
    mix.learn = Caught((image, metadata), (torch.arange(n),))
    mix.learn.y = mix.learn.yb[0]
    mix.before_batch()
    x, m = mix.learn.xb
    other, own = mix.yb1[0].float(), torch.arange(n).float()
    expected = own*mix.lam + other*(1 - mix.lam)
    assert torch.allclose(x[:, 0, 0, 0], expected, atol=1e-4) and torch.allclose(m[:, 0], expected, atol=1e-4)
    assert (mix.lam >= .5).all() and (mix.lam < .999).any() and (other != own).any()

def test_stronger_augmentation_moves_pixels_further(rows):
    from fastai.vision.all import set_seed
    away = []
    for rival in None, "augment":
        dls = RadiographDataLoaders.from_df(rows, size=32, bs=32, use="image", **rival_dls(rival))
        set_seed(0)
        table = dls.train_ds.items.iloc[:32]
        plain = dls.test_dl(table).one_batch()[0]
        moved = dls.train.after_batch((dls.train_ds.tls[0].tfms(table).to(dls.device),))[0]
        away.append(float((plain - moved).abs().mean()))
    assert away[1] > 1.3 * away[0] > 0

def test_duplicates_are_real_positive_training_rows_evenly(rows):
    more = duplicated(rows, 40, seed=1)
    pd.testing.assert_frame_equal(more.iloc[:len(rows)], rows)
    added = more.iloc[len(rows):]
    assert len(added) == 40 and set(added.split) == {"train"} and set(added.label) == {"Pneumonia"}
    assert np.ptp(added.image.value_counts()) <= 1
    assert duplicated(rows, 40, seed=1).equals(more) and not duplicated(rows, 40, seed=2).equals(more)
    assert duplicated(rows, 0).equals(rows)
    with pytest.raises(ValueError, match="no positive training row"): duplicated(rows[rows.label == "Normal"], 3)

def test_the_prior_that_training_saw(rows):
    share = positive(rows[rows.split == "train"]).mean()
    assert train_prior(rows) == train_prior(rows, "focal") == pytest.approx(share)
    for rival in "class-weights", "oversample", "logit-adjust": assert train_prior(rows, rival) == .5
    assert train_prior(duplicated(rows, 30)) > share
