import copy, json
import numpy as np, pytest, torch
from fastai.vision.all import Callback, load_learner
from cxr_fastai.arms import TRANSLATORS
from cxr_fastai.cohort.synthetic import read_manifest
from cxr_fastai.fit.callbacks import HistoryWriter
from cxr_fastai.fit.checkpoint import Checkpoint
from cxr_fastai.fit.precision import HALVES
from cxr_fastai.gan.cut import cut_learner, patch_layers
from cxr_fastai.gan.networks import Generator
from cxr_fastai.gan.pipeline import gan_folder, gan_training, run_gan, synthetic_minority
from cxr_fastai.gan.synthesis import resynthesise, synthesise
from cxr_fastai.gan.unpaired import UnpairedDataLoaders
from cxr_fastai.doctor import _translator
from cxr_fastai.report.answers import model as model_told
from cxr_fastai.settings import GANS, Gan, plan_of
from cxr_fastai.study.jobs import Synthesis
from conftest import ROOT

TINY = dict(n_blocks=1, ngf=4, ndf=4, precision="fp32")
def loaders(rows, **kwargs): return UnpairedDataLoaders.from_df(rows, **dict(size=32, bs=10) | kwargs)
def learner(rows, dls=None, **kwargs): return cut_learner(dls or loaders(rows), **TINY | kwargs)
def weights(learn): return torch.cat([p.detach().flatten() for p in learn.model.parameters()])

@pytest.fixture(scope="module")
def trained(rows, tmp_path_factory):
    learn, folder = learner(rows), tmp_path_factory.mktemp("cut")
    learn.fit_flat_lin(2, 1, 2e-3, cbs=[Checkpoint(folder/"checkpoints"), HistoryWriter(folder/"history.csv")])
    return learn, folder

# the networks

@pytest.mark.parametrize("n_blocks, upsample, layers", [
    (9, "transpose", [0, 4, 7, 10, 14]), (6, "resize", [0, 4, 7, 10, 14]), (3, "resize", [0, 4, 7, 10, 12]),
    (1, "transpose", [0, 4, 7, 10]), (0, "resize", [0, 4, 7])])
def test_patches_are_of_pixels_both_halvings_and_two_blocks(n_blocks, upsample, layers):
    g = Generator(n_blocks, 2, upsample=upsample)
    assert patch_layers(g) == layers
    sides = [o.shape[2] for o in g.maps(torch.zeros(1, 1, 32, 32), layers)]
    assert sides == [38, 16, 8, 8, 8][:len(layers)]

@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_look_on_the_way_changes_no_translation(residual, precision):
    torch.manual_seed(0)
    g, x = Generator(2, 4, residual=residual, precision=precision), torch.rand(2, 1, 24, 24)*2 - 1
    if residual: torch.nn.init.normal_(g.layers[-2].weight, 0., .1)
    y, maps = g.looked(x, [0, 4, 10])
    assert torch.equal(y, g(x)) and y.dtype == torch.float32
    for one, other in zip(maps, g.maps(x, [0, 4, 10])): assert torch.equal(one, other)

def test_its_defaults_are_the_papers(rows):
    learn = cut_learner(loaders(rows), ngf=2, ndf=2, precision="fp32")
    s, m = learn.settings, learn.model
    assert (s["lam"], s["identity"], s["temperature"], s["patches"], s["lr"]) == (1., True, .07, 256, 2e-4)
    assert [(o[0].in_features, o[2].in_features, o[2].out_features) for o in m.heads.heads] == [
        (n, 256, 256) for n in (1, 4, 8, 8, 8)]
    assert m.at == [0, 4, 7, 10, 14] and m.heads.patches == 256 and learn.loss_func.gan is torch.nn.functional.mse_loss
    learn.create_opt()
    groups = learn.opt.opt.param_groups
    assert [(o["betas"], o["eps"], o["weight_decay"]) for o in groups] == [((.5, .999), 1e-8, 0)]*2
    taken = sorted(id(p) for o in groups for p in o["params"])
    assert taken == sorted(id(p) for net in (m.g_ab, m.heads, m.d_b) for p in net.parameters())

# the learner

def test_it_learns_to_keep_patches_and_its_table_says_so(trained):
    learn, folder = trained
    names = learn.recorder.metric_names[1:-1]
    assert list(names) == "train_loss adv_ab nce_a nce_b d_b acc_d_b".split()
    values = np.array([list(o) for o in learn.recorder.values])
    assert np.isfinite(values).all() and (values[-1, 2:4] < .95*values[0, 2:4]).all()
    assert learn.seen == set(learn.dls.patients) and learn.model.steps == 3*len(learn.dls.train)

def test_a_seed_gives_its_bits_and_another_gives_others(rows, trained):
    same, other = learner(rows), learner(rows, seed=1)
    same.fit_flat_lin(2, 1, 2e-3)
    assert torch.equal(weights(same), weights(trained[0])) and not torch.equal(weights(other), weights(learner(rows)))

def test_broken_off_and_taken_up_it_is_the_unbroken_run_bit_for_bit(rows, trained, tmp_path, capsys):
    class Stop(Exception): pass
    class Break(Callback):
        def after_batch(self):
            if self.epoch == 1 and self.iter == 1: raise Stop("here")
    def fit(*more):
        learn = learner(rows)
        cbs = [Checkpoint(tmp_path/"checkpoints"), HistoryWriter(tmp_path/"history.csv"), *more]
        learn.fit_flat_lin(2, 1, 2e-3, cbs=cbs)
        return learn
    with pytest.raises(Stop): fit(Break())
    again, (whole, folder) = fit(), trained
    assert "going on after epoch 1 of 3" in capsys.readouterr().out
    assert torch.equal(weights(again), weights(whole)) and again.digest() == whole.digest()
    assert again.loss_func.n == whole.loss_func.n and [list(o) for o in again.recorder.values] == [
        list(o) for o in whole.recorder.values]
    one, other = (torch.load(o/"checkpoints"/"checkpoint-000003.pt", weights_only=True) for o in (folder, tmp_path))
    assert all(torch.equal(v, other["model"][k]) for k, v in one["model"].items() if torch.is_tensor(v))
    for i, state in one["opt"]["state"].items():
        assert all(torch.equal(v, other["opt"]["state"][i][k]) for k, v in state.items())
    assert torch.equal(one["random"]["torch"], other["random"]["torch"])
    assert (folder/"history.csv").read_bytes() == (tmp_path/"history.csv").read_bytes()

@pytest.mark.parametrize("switch", [
    dict(residual=True), dict(upsample="resize"), dict(gan="bce"), dict(identity=False), dict(idt_every=2),
    dict(diffaug="translation,cutout"), dict(patches=8), dict(temperature=.2), dict(lam=10.)])
def test_every_switch_trains_and_is_kept(rows, switch):
    learn = learner(rows, **switch)
    before = weights(learn)
    learn.fit(1, 2e-4)
    assert learn.recorder.losses[-1].isfinite() and not torch.equal(weights(learn), before)
    name, value = next(iter(switch.items()))
    assert learn.settings[name] == value

@pytest.mark.parametrize("precision", HALVES)
def test_nets_compute_in_its_precision_and_the_contrast_in_fp32(rows, precision):
    learn, seen = learner(rows, precision=precision), {}
    note = lambda name: lambda m, x, y: seen.setdefault(name, set()).add(y.dtype)
    for name, net in (("nets", learn.model.g_ab.layers[4]), ("nets", learn.model.d_b.layers[0]),
                      ("heads", learn.model.heads.heads[0][2])): net.register_forward_hook(note(name))
    learn.fit(1, 2e-4)
    assert seen == dict(nets={HALVES[precision]}, heads={torch.float32})
    assert all(p.dtype == torch.float32 for p in learn.model.parameters()) and learn.recorder.losses[-1].isfinite()

def test_it_translates_one_way_and_says_so(trained, rows, tmp_path):
    learn, _ = trained
    pixels = np.random.default_rng(0).integers(0, 256, (9, 32, 32), dtype=np.uint8)
    out = learn.translate(pixels)
    assert np.array_equal(out[:1], learn.translate(pixels[:1])) and out.shape == pixels.shape and learn.ways == ("a2b",)
    said = "direction='b2a': a CUT translates a2b alone, to Pneumonia; gan='fast', a CycleGAN, has both"
    for f in learn.digest, lambda way: learn.translate(pixels, way), lambda way: learn.predict(pixels[0], way), (
            lambda way: synthesise(learn, rows, 3, direction=way, out=tmp_path/"b2a")):
        with pytest.raises(ValueError, match=said): f("b2a")
    with pytest.raises(ValueError, match="direction='ab' is not known"): learn.translate(pixels, "ab")
    with pytest.raises(RuntimeError, match="A CUT predicts no labels"): learn.get_preds()
    assert not (tmp_path/"b2a").exists()
    assert [o.get_title() for o in learn.show_results(2).axes[:3]] == ["A", "A to B", "B"]
    assert str(learn.summary()).count("Total params") == 2

def test_films_are_made_and_made_again(trained, rows, tmp_path):
    learn, _ = trained
    made = synthesise(learn, rows, 4, out=tmp_path/"made")
    assert set(made.label) == {"Pneumonia"} and resynthesise(learn, made).shape == (4, 32, 32)
    assert set(json.loads((tmp_path/"made"/"generator.json").read_text())["seen"]) == learn.seen

def test_an_exported_one_translates_and_a_trained_model_goes_on(trained, rows, tmp_path):
    learn = learner(rows, model=copy.deepcopy(trained[0].model), ngf=64, patches=16)
    assert learn.settings["ngf"] == 4 and learn.settings["patches"] == 16 == learn.model.heads.patches
    learn.fit(1, 2e-4)
    learn.export(tmp_path/"cut.pkl")
    again, pixels = load_learner(tmp_path/"cut.pkl"), np.full((1, 32, 32), 99, np.uint8)
    assert np.array_equal(again.translate(pixels), learn.translate(pixels)) and again.digest() == learn.digest()
    assert again.digest() != trained[0].digest()

def test_keywords_that_would_change_nothing_are_refused(rows):
    with pytest.raises(ValueError, match="cut_learner doesn't take"): learner(rows, loss_func=1)
    with pytest.raises(ValueError, match="pool"): learner(rows, pool=50)

# a study's

@pytest.fixture
def small_cut(monkeypatch): monkeypatch.setitem(GANS, "cut", GANS["cut"] | dict(ngf=4, ndf=4, n_blocks=1))

def test_every_preset_names_a_translator_whose_learner_takes_it(rows):
    for word in GANS:
        gan = Gan(word)
        assert gan.kind in TRANSLATORS and "translator" not in gan.training
        own = {k: v for k, v in gan.training.items() if k not in ("epochs", "bs", "size")}
        small = own | dict(ngf=2, ndf=2, n_blocks=0, precision="fp32")
        learn = gan.translator.learner()(loaders(rows), **small)
        assert learn.kind == gan.kind and tuple(learn.model.ema) == gan.translator.ways
        assert gan.translator.told(gan_training(gan)).startswith("weight of ")
        assert gan_folder(rows, "out", gan).name.startswith(f"{gan.kind}-")

def test_run_gan_makes_one_class_and_says_so(small_cut, tmp_path, capsys):
    folder = run_gan(data=str(ROOT/"data"/"phantom"), gan="cut", size=32, epochs=1, normals=40, weights="none",
                     out=str(tmp_path))
    assert "A CUT translates one way: no Normal film is synthesised" in capsys.readouterr().out
    made, = folder.glob("*/manifest.csv")
    assert set(read_manifest(made.parent).label) == {"Pneumonia"} and folder.name.startswith("cut-")
    assert json.loads((folder/"settings.json").read_text())["gan"] == "cut"

def test_a_study_names_it_in_its_jobs_and_its_report():
    job, other = (Synthesis(None, None, [(Gan(o), "a2b")], seed=3) for o in ("cut", "fast"))
    assert (repr(job), job.kind, other.kind) == ("CUT of seed 3", "CUTs", "CycleGANs")
    plan = plan_of(gan="cut", seeds="0", size=32)
    settings = plan.flags() | dict(gan_training=gan_training(plan.gan), training={})
    assert "CycleGAN" not in (said := model_told(settings, None)) and "films by a CUT ('cut'): one generator" in said
    assert "weight of the contrast of patches 1, half of it between the minority's films and their own" in (
        TRANSLATORS["cut"].told(settings["gan_training"]))
    assert settings["gan_training"]["patches"] == 256 and settings["gan_training"]["identity"] is True

def test_doctor_counts_fewer_bytes_than_for_a_cyclegan():
    cut, fast = (_translator(Gan(o, size=64), "fp32") for o in ("cut", "fast"))
    assert cut["checkpoint"]*2 == fast["checkpoint"] and cut["training"] < fast["training"]

def test_films_the_other_way_are_refused_before_anything_is_trained(rows, tmp_path):
    with pytest.raises(ValueError, match="a CUT translates a2b alone, to Pneumonia"):
        synthetic_minority(rows, tmp_path, Gan("cut", size=32, epochs=1), direction="b2a")
    assert not list(tmp_path.iterdir())
