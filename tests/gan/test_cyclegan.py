import copy, math, sys
from types import SimpleNamespace
import matplotlib.pyplot as plt, numpy as np, pandas as pd, pytest, torch
from PIL import Image
from cxr_fastai.gan import callbacks
from fastai.vision.all import Callback, GradientClip, SaveModelCallback, load_learner
from cxr_fastai.fit.callbacks import HistoryWriter
from cxr_fastai.fit.checkpoint import Checkpoint
from cxr_fastai.fit.precision import HALVES
from cxr_fastai.gan.callbacks import SaveGrids
from cxr_fastai.gan.cyclegan import cyclegan_learner
from cxr_fastai.gan.unpaired import UnpairedDataLoaders
from conftest import SIDE

TINY = dict(n_blocks=1, ngf=4, ndf=4, precision="fp32")
def loaders(rows, **kwargs): return UnpairedDataLoaders.from_df(rows, **dict(size=32, bs=4) | kwargs)
def learner(rows, dls=None, **kwargs): return cyclegan_learner(dls or loaders(rows), **TINY | kwargs)

def weights(learn): return torch.cat([p.detach().flatten() for p in learn.model.parameters()])

@pytest.fixture(scope="module")
def trained(rows):
    learn = learner(rows)
    learn.fit_flat_lin(1, 1, 2e-3)
    return learn

# the loop

def test_the_epoch_table_has_the_eight_losses_and_both_accuracies(rows, tmp_path):
    learner(rows).fit(2, 2e-4, cbs=HistoryWriter(tmp_path/"history.csv"))
    table = pd.read_csv(tmp_path/"history.csv")
    assert list(table) == "train_loss adv_ab adv_ba cyc_a cyc_b idt_a idt_b d_a d_b acc_d_a acc_d_b".split()
    assert len(table) == 2 and table.notna().all().all() and table.filter(like="acc").stack().between(0, 1).all()

def test_columns_are_means_over_the_epochs_steps(rows):
    seen = []
    class Keep(Callback):
        def after_batch(self): seen.append({k: float(v) for k, v in self.loss_func.parts.items()})
    learn = learner(rows, idt_every=2)
    learn.fit(1, 2e-4, cbs=Keep())
    row = dict(zip(learn.recorder.metric_names[1:-1], learn.recorder.values[0]))
    for name in "adv_ab", "idt_a", "acc_d_b":
        taken = [o[name] for o in seen if name in o]
        assert len(taken) == (-(-len(seen)//2) if name == "idt_a" else len(seen))
        assert row[name] == pytest.approx(np.mean(taken), rel=1e-5)

def test_torchs_adam_with_the_references_numbers_in_two_groups(rows):
    learn = learner(rows)
    learn.create_opt()
    opt = learn.opt.opt
    assert isinstance(opt, torch.optim.Adam) and not isinstance(opt, torch.optim.AdamW)
    assert [(o["betas"], o["eps"], o["weight_decay"]) for o in opt.param_groups] == [((.5, .999), 1e-8, 0)]*2
    taken = [id(p) for o in opt.param_groups for p in o["params"]]
    m = learn.model
    assert sorted(taken) == sorted(id(p) for net in (m.g_ab, m.g_ba, m.d_a, m.d_b) for p in net.parameters())
    assert not any(p.requires_grad for p in m.ema.parameters())

class Rates(Callback):
    def before_fit(self): self.taken = []
    def after_batch(self): self.taken.append(self.opt.hypers[0]["lr"])

def rates(rows, *args, **kwargs):
    cb = Rates()
    learner(rows, loaders(rows, bs=10)).fit_flat_lin(*args, cbs=cb, **kwargs)
    return np.array(cb.taken).reshape(sum(args[:2]), -1)

def test_the_schedule_is_flat_then_a_line_to_zero(rows):
    seen = rates(rows, 2, 2, 1e-4)
    flat = np.full(seen[:2].size, 1e-4)
    assert np.allclose(seen[:2].ravel(), flat)
    line = 1e-4 * (1 - np.arange(seen[2:].size)/seen[2:].size)
    assert np.allclose(seen[2:].ravel(), line) and seen[-1, -1] > 0

def test_by_epoch_it_is_the_references_staircase(rows):
    seen = rates(rows, 3, 2, 3e-4, per="epoch") # its rule: 1 - max(0, epoch + 2 - 3)/(2 + 1), epoch from 0
    assert np.allclose(seen, np.array([3, 3, 2, 1, 0])[:, None] * 1e-4)

def test_either_part_of_the_schedule_may_be_empty(rows):
    assert np.allclose(rates(rows, 1, 0, 1e-4), 1e-4)
    falls = rates(rows, 0, 1, 1e-4)[0]
    assert falls[0] == pytest.approx(1e-4) and (np.diff(falls) < 0).all()
    with pytest.raises(ValueError, match="per='week' is not known"): learner(rows).fit_flat_lin(1, 1, per="week")

@pytest.mark.parametrize("epochs, steps, taken", [((2, 2), 5, [1, 1, 1, 2]), ((2, 1), 2, [1, 1]), ((1, 1), 1, [1]),
                                                  ((1, 1), 6, [3, 3]), ((1, 1), 5, [2, 3]), ((1, 1), 99, [3, 3])])
def test_steps_are_capped_evenly_and_half_of_them_are_flat(rows, epochs, steps, taken):
    learn, cb, seen = learner(rows, loaders(rows, bs=9)), Rates(), []
    class Count(Callback):
        def after_train(self): seen.append(self.iter + 1)
    whole = len(learn.dls.train)
    assert whole == 3
    learn.fit_flat_lin(*epochs, 1e-4, steps=steps, cbs=[cb, Count()])
    flat = sum(taken[:len(taken) - len(taken)*epochs[1]//sum(epochs)])
    assert seen == taken and learn.model.steps == min(steps, sum(epochs)*whole) == len(cb.taken)
    assert np.allclose(cb.taken[:flat], 1e-4) and (np.diff(cb.taken[flat:]) < 0).all() and cb.taken[-1] > 0
    assert len(learn.dls.train) == whole and learn.settings["steps"] == steps
    with pytest.raises(ValueError, match="steps=0 must be 1 or more"): learn.fit_flat_lin(1, 1, steps=0)

def test_other_steps_are_another_run(rows, tmp_path):
    dls = loaders(rows, bs=9)
    learner(rows, dls).fit_flat_lin(1, 1, steps=4, cbs=Checkpoint(tmp_path))
    with pytest.raises(ValueError, match="steps 4, not 5"):
        learner(rows, dls).fit_flat_lin(1, 1, steps=5, cbs=Checkpoint(tmp_path))

def test_the_learners_rate_holds_where_no_other_is_given(rows):
    learn = learner(rows, loaders(rows, bs=10), lr=1e-5)
    learn.fit_flat_lin(1, 0)
    assert set(learn.recorder.lrs) == {1e-5} == {learn.settings["lr"]} and learner(rows).lr == 2e-4
    learn.fit_flat_lin(1, 0, 3e-5)
    assert set(learn.recorder.lrs) == {3e-5}

def test_generators_and_discriminators_can_have_rates_of_their_own(rows):
    learn = learner(rows)
    start = copy.deepcopy(learn.model)
    learn.fit(1, [0., 1e-3])
    same = lambda net: all(map(torch.equal, getattr(start, net).parameters(), getattr(learn.model, net).parameters()))
    assert [same(o) for o in ("g_ab", "g_ba", "d_a", "d_b")] == [True, True, False, False]

def test_a_fit_can_begin_at_a_later_epoch(rows):
    learn, cb = learner(rows), Rates()
    learn.fit_flat_lin(1, 2, 1e-4, start_epoch=2, cbs=cb)
    assert len(learn.recorder.values) == 1 and cb.taken[0] == pytest.approx(5e-5) and learn.epoch == 2

def test_a_seed_gives_its_bits(rows):
    def run(seed):
        learn = learner(rows, loaders(rows, bs=10, seed=seed))
        learn.fit(1, 2e-4)
        return weights(learn)
    a, b, c = run(0), run(0), run(1)
    assert torch.equal(a, b) and not torch.equal(a, c)

def test_cudnns_fastest_kernels_are_for_its_fit_alone(rows):
    class Look(Callback):
        def before_train(self): self.taken = torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic
    learner(rows, loaders(rows, bs=10)).fit(1, cbs=[look := Look()])
    assert look.taken == (True, False) and not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cudnn.benchmark and torch.backends.cudnn.deterministic

def test_a_second_fit_goes_on_with_other_draws_and_an_interrupted_one_does_not_count(rows):
    class Pairs(Callback):
        def before_fit(self): self.first = None
        def before_batch(self): self.first = self.first if self.first is not None else self.xb[0].clone()
    class Interrupt(Callback):
        def after_backward(self): raise KeyboardInterrupt
    learn, firsts = learner(rows, loaders(rows, bs=10), cbs=Pairs()), []
    for _ in range(2):
        learn.fit(1)
        firsts.append(learn.pairs.first)
    with pytest.raises(KeyboardInterrupt): learn.fit(1, cbs=Interrupt())
    third = learn.pairs.first
    grads = []
    class Grads(Callback):
        def before_backward(self): grads.append(any(p.grad is not None for p in self.model.parameters()))
    learn.fit(1, cbs=Grads())
    assert not torch.equal(*firsts) and torch.equal(learn.pairs.first, third) and not grads[0]
    assert learn.fits == 3 and len(learn.cbs) == len(learner(rows, cbs=Pairs()).cbs)

def test_the_best_epoch_can_be_kept_by_fastais_callback(rows, tmp_path, capsys):
    dls = loaders(rows, path=tmp_path)
    learn = learner(rows, dls)
    learn.fit(3, 2e-3, cbs=SaveModelCallback("cyc_a", comp=np.less, fname="best"))
    cyc = [o[3] for o in learn.recorder.values]
    assert capsys.readouterr().out.count("Better model found") == sum(o == min(cyc[:i+1]) for i, o in enumerate(cyc))
    assert torch.equal(weights(learner(rows, dls).load("best", with_opt=False)), weights(learn))

def test_clipping_and_other_callbacks_of_fastai_work(rows):
    norms = []
    class Keep(Callback):
        def after_step(self): norms.append(torch.stack([p.grad.norm() for o in self.opt.param_lists for p in o]).norm())
    learner(rows).fit(1, 2e-4, cbs=[GradientClip(1e-3), Keep()])
    assert norms and max(norms) <= 1.01e-3

@pytest.mark.parametrize("switch", [
    dict(residual=True), dict(upsample="resize"), dict(gan="bce"), dict(pool=0), dict(identity=0.),
    dict(diffaug="brightness,contrast,translation,cutout"), dict(precision="bf16"), dict(precision="fp16")])
def test_every_switch_trains(rows, switch):
    learn = learner(rows, **switch)
    before = weights(learn)
    learn.fit(1, 2e-4)
    assert learn.recorder.losses[-1].isfinite() and not torch.equal(weights(learn), before)
    name, value = next(iter(switch.items()))
    assert learn.settings[name] == value

def test_two_weights_are_kept_as_two_and_like_ones_as_one(rows, tmp_path):
    dls = loaders(rows, bs=10)
    assert [learner(rows, dls, lam=o).settings["lam"] for o in ((3., 7.), [3., 7.], (5, 5), 5)] == [
        (3., 7.), (3., 7.), 5, 5]
    learn = learner(rows, dls, lam=(3., 7.))
    learn.fit(1, cbs=Checkpoint(tmp_path))
    again = learner(rows, loaders(rows, bs=10), lam=[3., 7.])
    again.fit(1, cbs=Checkpoint(tmp_path)) # is known as the same run
    assert torch.equal(weights(again), weights(learn))
    with pytest.raises(ValueError, match=r"lam \(3.0, 7.0\), not 3.0"):
        learner(rows, loaders(rows, bs=10), lam=3.).fit(1, cbs=Checkpoint(tmp_path))

def test_depth_follows_the_size(rows):
    dls = loaders(rows)
    count = lambda learn: sum(type(o).__name__ == "ResBlock" for o in learn.model.g_ab.layers)
    assert count(cyclegan_learner(dls, ngf=2, ndf=2)) == 6
    dls.size = 256
    assert count(cyclegan_learner(dls, ngf=2, ndf=2)) == 9
    assert count(cyclegan_learner(dls, n_blocks=0, ngf=2, ndf=2)) == 0

@pytest.mark.parametrize("precision, has, took", [
    ("bf16", False, "bf16"), ("fp16", True, "fp16"), ("fp32", True, "fp32"), ("auto", True, "bf16"),
    ("auto", False, "fp32")])
def test_precision_is_for_the_device_and_fp32_by_name(rows, monkeypatch, precision, has, took):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has)
    learn, seen = learner(rows, precision=precision), set()
    nets = [m for m in learn.model.modules() if isinstance(m, torch.nn.Conv2d)]
    for m in nets: m.register_forward_hook(lambda m, x, y: seen.add((y.dtype, y.is_contiguous())))
    learn.fit(1)
    learn.show_results(1)
    assert seen == {(HALVES.get(took, torch.float32), True)} and learn.settings["precision"] == took
    assert all(p.dtype == torch.float32 and p.is_contiguous() for p in learn.model.parameters())

# the running mean

def test_the_running_mean_by_hand(rows):
    learn, seen = learner(rows, ema=.9), []
    start = copy.deepcopy(learn.model.g_ab.state_dict())
    class Keep(Callback):
        order = -5 # before the mean
        def after_step(self): seen.append(copy.deepcopy(self.model.g_ab.state_dict()))
    learn.fit(1, 2e-4, cbs=Keep())
    mean = start
    for n, now in enumerate(seen, 1):
        share = max(.1, 9/(9 + n))
        mean = {k: mean[k] + (now[k] - mean[k])*share for k in mean}
    for k, v in learn.model.ema["a2b"].state_dict().items():
        torch.testing.assert_close(v, mean[k], atol=1e-6, rtol=1e-5)
    assert learn.model.steps == len(seen)

# what it gives

def test_an_image_gives_the_same_pixels_in_any_company(trained):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 32, 32), dtype=np.uint8)
    whole = trained.translate(pixels, "b2a")
    assert whole.dtype == np.uint8 and whole.shape == pixels.shape and whole.std() > 0
    for n in 1, 3, 8, 9: assert np.array_equal(trained.translate(pixels[:n], "b2a"), whole[:n])
    assert np.array_equal(trained.translate(pixels[::-1], "b2a"), whole[::-1])
    assert not np.array_equal(trained.translate(pixels, "a2b"), whole)

def test_a_generator_sees_batches_of_one_shape(trained):
    seen = set()
    hook = trained.model.ema["a2b"].register_forward_hook(lambda net, x, y: seen.add(y.shape))
    for n in 1, 8, 11: trained.translate(np.zeros((n, 32, 32), np.uint8))
    hook.remove()
    assert seen == {(8, 1, 32, 32)} # other shapes may take other kernels, whose last bits differ

def test_the_running_mean_translates(trained):
    pixels = np.random.default_rng(0).integers(0, 256, (1, 32, 32), dtype=np.uint8)
    x = torch.from_numpy(pixels)[:, None].float()/127.5 - 1
    with torch.no_grad(): out = trained.model.ema["a2b"](x.repeat(8, 1, 1, 1))[0, 0]
    assert np.array_equal(trained.translate(pixels)[0], ((out + 1)*127.5).round().byte().numpy())

def test_predict_takes_a_file_or_pixels(trained, rows, tmp_path):
    out = trained.predict(rows.file[0])
    pixels = np.asarray(Image.open(rows.file[0]).convert("L"))
    assert out.shape == (1, 32, 32) and out.dtype == torch.uint8
    square = trained.dls.train_ds.tfm.encodes(rows.iloc[0])[0].numpy()
    assert torch.equal(out, trained.predict(square)) and pixels.shape == (SIDE, SIDE)
    for f in trained.predict, lambda _, way: trained.digest(way):
        with pytest.raises(ValueError, match="direction='ab' is not known; 'a2b' makes Pneumonia of Normal"):
            f(square, "ab")

@pytest.mark.parametrize("shape, dtype", [((1, 32, 32), float), ((32, 32), np.uint8), ((1, 32, 30), np.uint8)])
def test_pixels_that_can_not_be_translated_are_refused(trained, shape, dtype):
    with pytest.raises(ValueError, match="Only uint8 pixels .* of 4"): trained.translate(np.zeros(shape, dtype))

def test_no_pixels_give_none_and_another_size_its_own(trained):
    assert trained.translate(np.zeros((0, 32, 32), np.uint8)).shape == (0, 32, 32)
    assert trained.translate(np.zeros((2, 40, 24), np.uint8)).shape == (2, 40, 24)

def test_results_are_drawn(trained):
    fig = trained.show_results(max_n=2)
    assert [o.get_title() for o in fig.axes[:4]] == ["A", "A to B", "B", "B to A"] and len(fig.axes) == 8

def test_grids_are_saved_every_so_many_epochs_and_at_the_end(rows, tmp_path):
    learner(rows, loaders(rows, bs=10)).fit(3, 2e-4, cbs=SaveGrids(tmp_path, every=2, n=2))
    assert sorted(o.name for o in tmp_path.iterdir()) == ["epoch-0002.png", "epoch-0003.png"]
    assert Image.open(tmp_path/"epoch-0002.png").size[0] > 300

def test_grids_are_shown_in_a_notebook(rows, tmp_path, monkeypatch):
    shown, before = [], plt.get_fignums()
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=shown.append))
    monkeypatch.setattr(callbacks, "IN_NOTEBOOK", True)
    learner(rows, loaders(rows, bs=10)).fit(2, cbs=SaveGrids(tmp_path, every=1, n=1))
    assert [type(o).__name__ for o in shown] == ["Figure"]*2 and plt.get_fignums() == before

def test_what_has_no_meaning_explains_itself(trained):
    with pytest.raises(RuntimeError, match="fit_flat_lin"): trained.lr_find()
    for f in trained.get_preds, trained.validate, trained.tta:
        with pytest.raises(RuntimeError, match="translate"): f()

def test_the_digest_names_the_weights(trained, rows):
    same, other = learner(rows, seed=3), learner(rows, seed=3)
    assert same.digest() == other.digest() and len(same.digest()) == 16
    assert len({trained.digest("a2b"), trained.digest("b2a"), same.digest("a2b")}) == 3

def test_the_digest_names_what_weights_do_not_say(rows):
    learn = learner(rows, seed=3)
    fp32 = learn.digest()
    for p in learn.model.ema["a2b"].parameters(): p[...] = 0
    zeros = learn.digest()
    learn.model.ema["a2b"].residual = True
    residual = learn.digest()
    bf16 = learner(rows, model=learn.model, precision="bf16").digest()
    assert len({fp32, zeros, residual, bf16}) == 4

# what it saw

def test_it_remembers_whose_radiographs_it_saw(trained, rows, tmp_path):
    train = set(rows.patient_id[rows.split == "train"].astype(str))
    assert trained.seen == train and learner(rows).seen == set()
    trained.save(tmp_path/"gan")
    assert learner(rows).load(tmp_path/"gan").seen == train

def test_a_second_learner_trains_a_trained_model_on_and_adds_what_it_sees(trained, rows):
    moved = rows.assign(split=rows.split.replace(dict(train="test", test="train")))
    dls = loaders(moved)
    model = copy.deepcopy(trained.model)
    learn = learner(moved, dls, model=model)
    before, seen = weights(learn), trained.seen
    learn.fit(1, 2e-4)
    assert not torch.equal(weights(learn), before) and learn.model is model
    assert learn.seen == seen | set(dls.patients) and learn.seen != seen

def test_a_second_learners_settings_are_the_models_and_its_precision_is_its_own(trained, rows):
    learn = cyclegan_learner(loaders(rows), model=copy.deepcopy(trained.model), precision="bf16", lam=3.)
    nets = [m for m in learn.model.modules() if hasattr(m, "precision")]
    assert len(nets) == 6 and all(o.precision == "bf16" for o in nets) and trained.model.g_ab.precision == "fp32"
    changed = {k for k, v in learn.settings.items() if v != trained.settings[k]}
    assert changed == {"precision", "lam"} and learn.settings["ngf"] == 4

def test_an_exported_learner_translates_and_carries_no_patient(rows, tmp_path):
    learn = learner(rows, loaders(rows.assign(patient_id=rows.patient_id.astype("category"))))
    learn.fit(1, 2e-4)
    opt = learn.opt.state_dict()["state"]
    pixels = np.random.default_rng(0).integers(0, 256, (1, 32, 32), dtype=np.uint8)
    expected = learn.translate(pixels)
    learn.export(tmp_path/"gan.pkl")
    raw = (tmp_path/"gan.pkl").read_bytes()
    assert not any(o.encode() in raw for name in ("file", "image") for o in rows[name])
    films = learn.dls.train_ds.tfm(rows)
    assert not any(o.numpy().tobytes() in raw for x in (films, films.float()/127.5 - 1) for o in x)
    held = set(rows.patient_id[rows.split != "train"].astype(str)) # the others are what `seen` is for
    assert not any(o.encode() in raw for o in held)
    again = load_learner(tmp_path/"gan.pkl")
    assert np.array_equal(again.translate(pixels), expected) and again.seen == learn.seen
    assert torch.equal(again.predict(rows.file[0]), learn.predict(rows.file[0])) and again.digest() == learn.digest()
    assert not again.loss_func.pool_a.images and len(learn.loss_func.pool_a.images)
    with pytest.raises(ValueError, match="no rows to train on"): again.fit(1)
    with pytest.raises(ValueError, match="no radiographs to show"): again.show_results()
    after = learn.opt.state_dict()["state"] # export makes the optimizer anew
    assert all(torch.equal(x[k], after[i][k]) for i, x in opt.items() for k in x)
    again.dls = learn.dls
    again.fit(1)
    assert not np.array_equal(again.translate(pixels), expected)

# collapse

def test_a_normal_run_warns_of_nothing(rows, recwarn):
    learner(rows).fit(2, 2e-4)
    assert not [o for o in recwarn if "epoch" in str(o.message)]

def test_nan_ends_training_with_a_warning_and_no_checkpoint_of_it(rows, tmp_path):
    class Break(Callback):
        def before_batch(self):
            if self.epoch == 1: self.model.g_ab.layers[1].weight.data.fill_(math.nan)
    with pytest.warns(UserWarning, match="epoch 2: the loss is nan: training stops"):
        learn = learner(rows, loaders(rows, bs=10))
        learn.fit(3, 2e-4, cbs=[Break(), Checkpoint(tmp_path), SaveGrids(tmp_path/"grids", 1)])
    assert [o.name for o in tmp_path.glob("*.pt")] == ["checkpoint-000001.pt"]
    assert [o.name for o in (tmp_path/"grids").iterdir()] == ["epoch-0001.png"]

def test_a_last_step_that_breaks_the_weights_leaves_no_checkpoint(rows, tmp_path):
    class Break(Callback):
        def after_step(self):
            if self.epoch == 1 and self.iter == self.n_iter - 1: self.model.d_a.layers[0].weight.data[0] = math.inf
    learn = learner(rows, loaders(rows, bs=10))
    with pytest.warns(UserWarning, match="epoch 2: weights are not finite: training stops"):
        learn.fit(3, 2e-4, cbs=[Break(), Checkpoint(tmp_path), SaveGrids(tmp_path, 1), HistoryWriter(tmp_path/"h.csv")])
    assert sorted(o.name for o in tmp_path.iterdir()) == ["checkpoint-000001.pt", "epoch-0001.png", "h.csv"]
    assert len(pd.read_csv(tmp_path/"h.csv")) == len(learn.recorder.values) == 1

def test_translations_all_alike_are_said(rows):
    learn = learner(rows)
    class Flatten(Callback):
        order = -1
        def after_epoch(self):
            for p in self.model.ema["b2a"].parameters(): p.data.zero_()
    with pytest.warns(UserWarning, match="translations b2a .*mode collapse"): learn.fit(1, 2e-4, cbs=Flatten())

def test_a_discriminator_that_always_wins_is_said_once(rows):
    learn = learner(rows)
    class Win(Callback):
        def after_loss(self): self.loss_func.parts["acc_d_a"] = torch.tensor(1.)
    with pytest.warns(UserWarning) as seen: learn.fit(2, 2e-4, cbs=Win())
    assert len([o for o in seen if "discriminator d_a is right about 100.0%" in str(o.message)]) == 1
