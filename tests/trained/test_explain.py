import dataclasses
import runpy, sys
import numpy as np, pandas as pd, pytest, torch
from cxr_fastai.trained.bundle import load_bundle, save_bundle
from cxr_fastai.cohort.rows import save_rows
from cxr_fastai.cohort.sampling import split_patients
from cxr_fastai.data.loaders import RadiographDataLoaders
from cxr_fastai.trained.ask import ask, encoded
from cxr_fastai.models.fusion import FUSIONS
from cxr_fastai.cohort.leaks import LeakError
from sklearn.metrics import roc_auc_score
from cxr_fastai.models.learner import fusion_learner, image_learner, metadata_learner
from cxr_fastai.trained.explain import explain, explain_bundle
from conftest import ROOT

pytest.importorskip("captum")
SIDE = 64
MAKE = dict(image=image_learner, metadata=metadata_learner, both=fusion_learner)

def make(rows, path, use="both", arch="resnet10t", fit=0, **kwargs):
    dls = RadiographDataLoaders.from_df(rows, path, size=SIDE, bs=8, use=use, tfms=[])
    if use != "metadata": kwargs = dict(arch=arch, weights="none", precision="fp32") | kwargs
    learn = MAKE[use](dls, **kwargs)
    with learn.no_bar(), learn.no_logging():
        if fit: learn.fit(fit)
    return learn

def log_odds(learn, rows):
    with learn.no_bar(): prob = learn.get_preds(dl=learn.dls.test_dl(rows))[0].double()
    return (prob[:, 1].log() - prob[:, 0].log()).numpy()

@pytest.fixture(scope="module")
def learn(rows, tmp_path_factory): return make(rows, tmp_path_factory.mktemp("learn"), fit=2)

@pytest.fixture(scope="module")
def test(rows): return rows[rows["split"] == "test"]

@pytest.fixture(scope="module")
def found(learn, test): return explain(learn, test)

@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_probabilities_are_the_learners_own_bits(rows, test, tmp_path, precision):
    learn = make(rows, tmp_path, precision=precision, fit=1)
    with learn.no_bar(): prob = learn.get_preds(dl=learn.dls.test_dl(test))[0][:, 1]
    found = explain(learn, test)
    assert np.array_equal(found.table["probability"], prob.numpy())
    atol = 1e-4 if precision == "fp32" else .05 # bf16 has fewer digits than what is explained
    np.testing.assert_allclose(found.table["log_odds"], log_odds(learn, test), atol=atol)

def test_heat_of_a_pooled_map_under_a_linear_layer_is_its_share_of_the_log_odds(rows, test, tmp_path):
    learn = make(rows, tmp_path, "image", fit=1)
    found, head = explain(learn, test), learn.model.head[-1]
    with torch.no_grad(): fmap = torch.cat([learn.model.backbone(x) for x, in learn.dls.test_dl(test)])
    weight, bias = head.weight[1] - head.weight[0], head.bias[1] - head.bias[0]
    heat = (weight[:, None, None] * fmap).detach().sum(1) / fmap[0, 0].numel()
    np.testing.assert_allclose(found.heat[:, 0], heat, atol=1e-5)
    np.testing.assert_allclose(found.heat.sum((1, 2, 3)) + bias.item(), found.table["log_odds"], atol=1e-4)

def test_heat_is_where_the_finding_is(tmp_path):
    "A model that sees nothing but the brightness of places: heat is highest where the film is."
    from PIL import Image
    films, rng = [], np.random.default_rng(0)
    for i in range(48):
        film = rng.integers(0, 60, (SIDE, SIDE)).astype(np.uint8)
        y, x = (0, 0) if i % 2 else (32, 32) # the bright quarter, its corner
        film[y:y+32, x:x+32] += 150
        Image.fromarray(film).save(tmp_path/f"{i}.png")
        films.append(dict(image=f"{i}.png", file=str(tmp_path/f"{i}.png"), patient_id=i, label=i % 3 == 0, view="PA",
                          split=("train", "train", "valid", "test")[i % 4]))
    rows = pd.DataFrame(films)
    rows["label"] = pd.Categorical.from_codes(rows["label"].astype(int), ["Normal", "Pneumonia"], ordered=True)
    dls = RadiographDataLoaders.from_df(rows, tmp_path, size=SIDE, bs=8, use="image", tfms=[])
    learn = image_learner(dls, "resnet10t", weights="none", precision="fp32")
    class Bright(torch.nn.Module):
        num_features = 1
        def forward_features(self, x): return torch.nn.functional.avg_pool2d(x, 16)
    learn.model.backbone.body, learn.model.head = Bright(), torch.nn.Linear(1, 2)
    learn.model.head.weight.data = torch.tensor([[-1.], [1.]])
    heat = explain(learn, rows).heat[:, 0]
    first = rows.index.to_numpy() % 2 == 1
    for at, corner in ((first, np.s_[:, :2, :2]), (~first, np.s_[:, 2:, 2:])):
        assert (heat[at][corner].flatten(1).mean(1) > heat[at].flatten(1).mean(1) + .1).all()

def test_image_and_metadata_share_the_log_odds_by_shapley(learn, test):
    few = test.iloc[:7].reset_index(drop=True)
    found, names = explain(learn, few), learn.dls.metadata.names
    swapped = [few.assign(**{o: few[o].iloc[j] for o in names}) for j in range(len(few))] # everyone with j's metadata
    table = np.stack([log_odds(learn, o) for o in swapped], 1)                            # image i, metadata j
    image, metadata, neither, own = table.mean(1), table.mean(0), np.diag(table).mean(), np.diag(table)
    np.testing.assert_allclose(found.table["from_image"], ((own - metadata) + (image - neither)) / 2, atol=1e-4)
    np.testing.assert_allclose(found.table["from_metadata"], ((own - image) + (metadata - neither)) / 2, atol=1e-4)
    a, b = (found.table[f"from_{o}"].abs().mean() for o in ("image", "metadata"))
    assert found.of("decision_share")[0] == pytest.approx(a / (a + b), abs=1e-6)

@pytest.mark.parametrize("fusion", FUSIONS)
def test_shapley_values_of_every_fusion_sum_to_the_log_odds(rows, test, tmp_path, fusion):
    table = explain(make(rows, tmp_path, arch="test_resnet", fusion=fusion, fit=1), test).table
    rest = table["log_odds"] - table["from_image"] - table["from_metadata"]
    assert np.ptp(rest) < 1e-4 and rest.mean() == pytest.approx(table["log_odds"].mean(), abs=1) # others' mean

def test_knowing_is_against_missing(learn, test, found):
    own = log_odds(learn, test)
    for name in "age", "sex", "view":
        without = log_odds(learn, test.assign(**{name: None}))
        np.testing.assert_allclose(found.table[f"knowing_{name}"], own - without, atol=1e-4)
    none = log_odds(learn, test.assign(age=None, sex=None, view=None))
    np.testing.assert_allclose(found.table["knowing_metadata"], own - none, atol=1e-4)
    assert (found.table.loc[test["age"].isna().to_numpy(), "knowing_age"] == 0).all()

def test_a_shuffled_input_is_another_rows(learn, test):
    rng, n = np.random.default_rng(3), len(test)
    turn, rows = torch.from_numpy(rng.permutation(n)), test.reset_index(drop=True)
    tfm, z = encoded(learn, rows)
    said = ask(learn, rows, z, tfm, [turn], [0]).said
    for name, column in ("image", "file"), ("age", "age"):
        swapped = rows.assign(**{column: rows[column].to_numpy()[turn]})
        np.testing.assert_allclose(said[name, "shuffled", 0], log_odds(learn, swapped), atol=1e-4)

def test_an_unused_column_has_no_importance_and_a_used_one_has(rows, test, tmp_path):
    learn = make(rows, tmp_path, "metadata", fit=12)
    first, column = learn.model.mlp.hidden[0][0], learn.model.mlp.column
    first.weight.data[:, column == 0] = 0 # sex
    found = explain(learn, test)
    assert found.of("auc_drop", "sex") == (0, 0, 0) and found.of("log_odds_change", "sex") == (0, 0, 0)
    assert (found.table["knowing_sex"] == 0).all() and found.of("log_odds_change", "view")[1] > 0
    prob, label = found.table["probability"], test["label"].cat.codes.to_numpy()
    drop, low, high = found.of("auc_drop", "metadata") # shuffled together, they say nothing
    assert low < drop < high and abs(roc_auc_score(label, prob) - drop - .5) < .15

@pytest.mark.parametrize("arch", ["resnet50", "densenet121", "vgg16", "test_vit", "test_convnext"])
def test_backbones_of_the_paper_and_others_have_heat(rows, test, tmp_path, arch):
    learn = make(rows, tmp_path, arch=arch)
    found = explain(learn, test.iloc[:3])
    h, w = found.heat.shape[2:]
    assert len(found.heat) == 3 and h == w and found.heat.isfinite().all() and found.heat.abs().sum() > 0
    if arch == "test_vit": assert h == 4 # 64 px in patches of 16; the class token is nowhere
    assert found.table["border_heat"].between(0, 1).all() and len(found.show(1).axes) == 3

def test_a_bundle_is_explained_as_its_learner(learn, test, found, tmp_path):
    again = explain(load_bundle(save_bundle(learn, tmp_path/"b")), test)
    pd.testing.assert_frame_equal(again.table, found.table)
    pd.testing.assert_frame_equal(again.importance, found.importance)

@pytest.mark.parametrize("use", ["image", "metadata"])
def test_what_a_model_does_not_read_is_left_out(rows, test, tmp_path, use):
    found = explain(make(rows, tmp_path, use, fit=1), test)
    inputs = {"image"} if use == "image" else {"metadata", "sex", "view", "age"}
    assert set(found.importance["input"]) == inputs | {"model"} and found.of("decision_share") is None
    assert ("border_heat" in found.table) == (found.heat is not None) == (use == "image")
    assert len(found.show(0).axes) == len(found.show().axes) == (2 if use == "image" else 1)
    if use == "metadata": explain(make(rows, tmp_path, use), test[["sex", "age"]].iloc[:4]).save(tmp_path/"out")

def test_rows_without_labels_and_a_single_row_are_explained(learn, test):
    found = explain(learn, test[["file", "age"]].iloc[:5])
    assert set(found.importance["measure"]) == {"log_odds_change", "decision_share", "border_heat"}
    alone = explain(learn, dict(image=test["file"].iloc[0], sex="F"))
    assert len(alone.table) == 1 and alone.words[0]["age"] is None
    assert len(alone.show(0).axes) == len(alone.show().axes) == 3

def test_intervals_hold_their_values_and_a_seed_gives_its_bits(learn, test, found):
    assert (found.importance["low"] <= found.importance["value"]).mean() > .8 and "of the decision" in str(found)
    assert (found.importance["high"] >= found.importance["value"]).mean() > .8
    again, other = explain(learn, test), explain(learn, test, seed=1)
    pd.testing.assert_frame_equal(again.importance, found.importance)
    assert not again.importance["value"].equals(other.importance["value"])

def test_tables_and_figures_are_saved_and_those_of_before_go(learn, test, found, tmp_path):
    found.save(tmp_path, 5)
    files = sorted(o.name for o in (tmp_path/"patients").iterdir())
    assert {o.name for o in tmp_path.iterdir()} == {
        "explanations.csv", "importance.csv", "limits.txt", "patients", "summary.png"}
    assert len(files) == 5
    shown = found.table["probability"].iloc[[int(o[:5]) for o in files]]
    assert {found.table["probability"].min(), found.table["probability"].max()} <= set(shown)
    assert all(found.table["image"].iloc[int(o[:5])].removesuffix(".png") in o for o in files)
    (tmp_path/"patients"/"mine.png").touch()
    explain(learn, test.iloc[:2], tmp_path, 1)
    assert len(pd.read_csv(tmp_path/"explanations.csv")) == 2
    assert len(left := list((tmp_path/"patients").iterdir())) == 2 and tmp_path/"patients"/"mine.png" in left
    assert not list(tmp_path.rglob(".*"))

def test_a_bundle_and_a_csv_of_rows_are_explained_from_files(learn, rows, test, tmp_path):
    save_rows(rows, tmp_path/"rows.csv")
    found = explain_bundle(save_bundle(learn, tmp_path/"b"), tmp_path/"rows.csv", tmp_path/"out", max_figures=1)
    assert found.table["image"].tolist() == test["image"].tolist() and (tmp_path/"out"/"summary.png").exists()
    assert "Metadata alone" not in str(found)
    line = dict(backbone="resnet50", arm="meta", metric="rocauc", mean=.61, low=.5, high=.72)
    pd.DataFrame([line | dict(arm="real", mean=.9), line]).to_csv(tmp_path/"scores.csv", index=False)
    found = explain_bundle(tmp_path/"b", tmp_path/"rows.csv", tmp_path/"out", max_figures=1)
    assert "Metadata alone, the study's arm Meta: AUC 0.61 (0.50 to 0.72)." in (tmp_path/"out"/"limits.txt").read_text()

def test_heat_reassures_nobody_about_a_model_that_sees_nothing(found):
    assert "says nothing against one" in str(found) and "where even heat would" not in str(found)
    def told(area):
        table = found.importance[found.importance["measure"] != "rocauc"]
        table = pd.concat([table, pd.DataFrame([("rocauc", "model", *area)], columns=table.columns)])
        return str(dataclasses.replace(found, importance=table))
    assert "AUC on them 0.50 (0.41 to 0.59)" in told((.5, .41, .59)) and "no better than chance" in told((.5, .41, .59))
    assert "no better than chance" not in told((.8, .7, .9))

def test_a_decision_is_the_learners(learn, test, tmp_path):
    again = load_bundle(save_bundle(learn, tmp_path/"b", threshold=.9))
    table = explain(again, test.iloc[:6]).table
    assert (table["decision"] == np.where(table["probability"].astype(float) > .9, "Pneumonia", "Normal")).all()

def test_rows_of_training_are_not_scored_as_others(learn, rows):
    other = split_patients(rows, seed=5)
    with pytest.raises(LeakError, match="was trained on .* patients that aren't in train"):
        explain(learn, other[other["split"] == "test"])

def test_bad_rows_get_one_sentence(learn, test):
    with pytest.raises(ValueError, match="no rows to explain"): explain(learn, test.iloc[:0])
    with pytest.raises(ValueError, match="label Cardiomegaly is none of.*Normal, Pneumonia"):
        explain(learn, test.assign(label="Cardiomegaly"))

def test_without_captum_it_is_said_and_metadata_is_explained(learn, rows, test, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(ImportError, match=r"pip install 'cxr_fastai\[explain\]'"): explain(learn, test)
    assert len(explain(make(rows, tmp_path, "metadata"), test).table) == len(test)

def recipe(*args):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["explain.py", *map(str, args)])
        return runpy.run_path(str(ROOT/"recipes"/"explain.py"), run_name="__main__")

def test_the_recipe_says_the_shares_and_mends_in_one_sentence(learn, rows, tmp_path, capsys):
    save_rows(rows, tmp_path/"rows.csv")
    bundle = save_bundle(learn, tmp_path/"b.safetensors")
    recipe(bundle, tmp_path/"rows.csv", "--out", tmp_path/"out", "--max-figures", 2)
    assert "of the decision is the image's" in capsys.readouterr().out
    assert len(list((tmp_path/"out").rglob("*.png"))) == 3
    with pytest.raises(SystemExit, match="no bundle"): recipe(tmp_path/"nowhere", tmp_path/"rows.csv")
