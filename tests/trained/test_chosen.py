import json
import numpy as np, pandas as pd, pytest, torch
from cxr_fastai.cohort.leaks import LeakError
from cxr_fastai.stats.calibration import logits, threshold_at
from cxr_fastai.stats.operating import fit_temperature, tempered
from cxr_fastai.trained.bundle import load_bundle, read_card, save_bundle
from cxr_fastai.trained.card import BundleError
from cxr_fastai.trained.chosen import settle_out_of_fold
from cxr_fastai.trained.explain import explain
from cxr_fastai.trained.hub import model_card
from cxr_fastai.trained.predict import Predictor, predict_patients
from cxr_fastai.data.loaders import RadiographDataLoaders
from cxr_fastai.models.learner import fusion_learner
from conftest import SIDE

def of(rows, side): return rows[rows["split"] == side].reset_index(drop=True)

def said(learn, rows):
    with learn.no_bar(): return learn.get_preds(dl=learn.dls.test_dl(rows))[0][:, 1].numpy()

@pytest.fixture(scope="module")
def learn(rows, tmp_path_factory):
    "Its log odds on valid rows have mean 0 and sd 4."
    learn = fusion_learner(RadiographDataLoaders.from_df(rows, tmp_path_factory.mktemp("l"), size=SIDE, bs=8, tfms=[]),
                           "test_resnet", weights="none", precision="fp32")
    with learn.no_bar(), learn.no_logging(): learn.fit(6, 3e-3)
    valid, last = of(rows, "valid"), learn.model.head.head[1]
    odds = logits(said(learn, valid))
    with torch.no_grad():
        last.weight.mul_(4/odds.std())
        last.bias.mul_(4/odds.std())
        last.bias[1] -= float(odds.mean()*4/odds.std())
    return learn

def planted(rows, prob, sign):
    "Valid rows whose labels go with the probabilities, but for every third."
    hit = (prob > np.median(prob)) ^ (np.arange(len(prob)) % 3 == 0) ^ (sign < 0)
    return rows.assign(label=pd.Categorical.from_codes(hit.astype(int), ["Normal", "Pneumonia"], ordered=True))

@pytest.fixture(scope="module")
def valid(learn, rows): return planted(of(rows, "valid"), said(learn, of(rows, "valid")), 1)

@pytest.fixture(scope="module")
def bundle(learn, valid, tmp_path_factory):
    return save_bundle(learn, tmp_path_factory.mktemp("b")/"b", "specificity=.9", calibrate="temperature", valid=valid)

def test_both_are_chosen_on_valid_rows_and_stored(learn, rows, valid, bundle):
    card, plain = read_card(bundle), said(learn, valid)
    hit = (valid["label"] == "Pneumonia").to_numpy()
    assert card["temperature"] == pytest.approx(fit_temperature(hit, plain)) != 1
    again = load_bundle(bundle)
    assert (again.temperature, again.threshold) == (card["temperature"], card["threshold"]) and learn.temperature == 1
    now = said(again, valid)
    np.testing.assert_allclose(now, tempered(plain, card["temperature"]), atol=1e-5)
    assert card["threshold"] == threshold_at(hit, now) and learn.threshold == .5
    how = card["chosen"]
    assert how["rows"] == len(valid) and how["threshold"] == "specificity=.9" and how["calibrate"] == "temperature"
    assert how["specificity"] == (now[~hit] <= card["threshold"]).mean() >= how["wanted"] == .9
    text = model_card(bundle)
    assert "specificity=.9" in text and f"temperature of {card['temperature']:.3g}" in text and "no test row" in text

def test_every_door_has_the_temperature_and_the_threshold(rows, bundle, tmp_path):
    learn, some = load_bundle(bundle), of(rows, "test")
    prob = said(learn, some)
    some.drop(columns="label").to_csv(tmp_path/"n.csv", index=False)
    table = pd.read_csv(predict_patients(bundle, tmp_path/"n.csv", tmp_path/"o.csv"))
    np.testing.assert_allclose(table["probability"], prob, rtol=1e-6)
    calls = np.where(prob.astype(float) > learn.threshold, "Pneumonia", "Normal")
    assert table["decision"].tolist() == calls.tolist() and Predictor(learn).threshold == learn.threshold
    with learn.no_bar(): one = learn.predict(some.iloc[0])
    assert one[0] == calls[0] and float(one[2][1]) == pytest.approx(prob[0], abs=1e-6)
    said_beside = pd.read_csv(tmp_path/"o.summary.csv").set_index("figure")["value"]
    how, share = learn.card["chosen"], said_beside["training rows that are"]
    assert said_beside["expected of films like those"] == pytest.approx(
        share*how["recall"] + (1 - share)*(1 - how["specificity"]))
    found = explain(learn, some).table
    np.testing.assert_allclose(found["probability"], prob, atol=1e-6)
    np.testing.assert_allclose(found["log_odds"], np.log(prob/(1 - prob)), atol=1e-3)

def test_a_bundle_of_a_bundle_keeps_them_and_forgets_how_where_they_change(bundle, valid, tmp_path):
    learn = load_bundle(bundle)
    assert read_card(save_bundle(learn, tmp_path/"a")) == read_card(bundle)
    other = read_card(save_bundle(learn, tmp_path/"b", threshold=.3))
    assert other["threshold"] == .3 and "chosen" not in other and other["temperature"] == learn.temperature
    warm = read_card(save_bundle(learn, tmp_path/"c", calibrate="temperature", valid=valid))
    assert warm["temperature"] == pytest.approx(learn.temperature, rel=1e-3) # of what the model says without it
    with pytest.raises(ValueError, match="has no valid rows to choose on"): save_bundle(learn, tmp_path/"d", "youden")

def test_by_default_the_learners_own_valid_rows_are_taken(learn, rows, tmp_path):
    card, own = read_card(save_bundle(learn, tmp_path/"b", "youden")), of(rows, "valid")
    assert card["chosen"]["rows"] == len(own) and card["chosen"]["threshold"] == "youden" and "temperature" not in card
    assert card["threshold"] in said(learn, own).astype(float)

def test_nothing_is_chosen_on_test_or_training_rows(learn, rows, valid, bundle, tmp_path):
    test = of(rows, "test")
    planted = [test, of(rows, "train"), test.assign(split="valid"), test.drop(columns="split"),
               test.drop(columns=["split", "patient_id"]), of(rows, "train").assign(split="valid"),
               test.assign(split="valid", image="other.png"), rows]
    for o in planted:
        for how in dict(threshold="specificity=.9"), dict(calibrate="temperature"), dict(threshold="youden"):
            with pytest.raises(LeakError): save_bundle(learn, tmp_path/"no", valid=o, **how)
    with pytest.raises(LeakError, match="of train or test"):
        save_bundle(load_bundle(bundle), tmp_path/"no", "youden", valid=test)
    mine = learn.dls.valid_ds.items["split"]
    learn.dls.valid_ds.items["split"] = "test" # DataLoaders that were tampered with
    try:
        with pytest.raises(LeakError): save_bundle(learn, tmp_path/"no", "youden")
    finally: learn.dls.valid_ds.items["split"] = mine
    assert not (tmp_path/"no").exists() and learn.temperature == 1

@pytest.mark.parametrize("how, why", [
    (dict(threshold="specificty=.9"), "neither a number"), (dict(threshold=1.5), "from 0 to 1"),
    (dict(calibrate="platt"), "calibrate='platt' is not known"), (dict(threshold=.4, valid=1), "nothing is asked")])
def test_other_words_are_refused(learn, valid, tmp_path, how, why):
    with pytest.raises(ValueError, match=why):
        save_bundle(learn, tmp_path/"no", **how | (dict(valid=valid) if "valid" in how else {}))
    assert not (tmp_path/"no").exists()

def test_rows_that_give_no_such_thing_are_refused_and_nothing_changes(learn, rows, valid, tmp_path):
    prob = said(learn, valid)
    for labels, why in ((planted(valid, prob, -1), "by chance"), (valid.assign(
            label=pd.Categorical(["Normal"]*len(valid), ["Normal", "Pneumonia"], ordered=True)), "of one class")):
        with pytest.raises(ValueError, match=why):
            save_bundle(learn, tmp_path/"no", calibrate="temperature", valid=labels)
    assert learn.temperature == 1 and not (tmp_path/"no").exists()

@pytest.mark.parametrize("change", [
    dict(temperature=0), dict(temperature="2"), dict(chosen=dict(rows=3)), dict(chosen=[]),
    dict(temperature=1e9), dict(chosen=dict(much=1))])
def test_a_card_that_says_something_else_is_refused(bundle, tmp_path, change):
    import shutil
    shutil.copytree(bundle, tmp_path/"x")
    (tmp_path/"x"/"bundle.json").write_text(json.dumps(read_card(bundle) | change))
    with pytest.raises(BundleError, match=list(change)[0]): read_card(tmp_path/"x")

def test_a_learner_has_a_temperature_of_its_own(tiny_learner, rows):
    learn, some = tiny_learner(), of(rows, "test")
    before = said(learn, some)
    learn.temperature = 2.
    np.testing.assert_allclose(said(learn, some), tempered(before, 2), atol=1e-6)
    learn.temperature = 1.
    assert (said(learn, some) == before).all()
    for o in 0, -1, float("nan"), float("inf"):
        with pytest.raises(ValueError, match="temperature is"): learn.temperature = o

# Out of fold

def out_of_fold(n=60, repeats=1):
    "What members of three folds said of their test films, among them a synthetic one."
    rng, lines = np.random.default_rng(0), []
    hit = np.arange(n) % 3 == 0
    for r in range(repeats):
        prob = 1/(1 + np.exp(-4*rng.normal(hit*1., 1)))
        lines.append(pd.DataFrame(dict(image=[f"{i}.png" for i in range(n)], patient_id=np.arange(n)//2, label=hit*1,
                                       probability=prob, side="test", fold=3*r + np.arange(n) % 3)))
    made = lines[0].head(1).assign(image="made.png", probability=.999)
    return pd.concat([o.assign(synthetic=False) for o in lines] + [made.assign(synthetic=True)], ignore_index=True)

@pytest.mark.parametrize("repeats", [1, 2])
def test_out_of_fold_each_film_counts_once_with_the_mean_of_those_that_were_asked(bundle, tmp_path, repeats):
    learn, said = load_bundle(bundle), out_of_fold(repeats=repeats)
    learn.temperature = 1.
    settle_out_of_fold(learn, said, "specificity=.9", "temperature")
    films = said[~said["synthetic"]].groupby("image", sort=False)
    hit, prob = films["label"].first().to_numpy() == 1, films["probability"].mean().to_numpy()
    assert learn.temperature == pytest.approx(fit_temperature(hit, prob)) != 1
    now = tempered(prob, learn.temperature)
    assert learn.threshold == pytest.approx(threshold_at(hit, now)) and (now[~hit] <= learn.threshold).mean() >= .9
    card = read_card(save_bundle(learn, tmp_path/"b"))
    assert (card["temperature"], card["threshold"]) == (learn.temperature, learn.threshold)
    how = card["chosen"]
    assert (how["side"], how["rows"], how["patients"]) == ("out of fold", 60, 30) and how["wanted"] == .9
    text = model_card(tmp_path/"b")
    assert "Chosen out of fold, on 60 films" in text and "no figure on them is untouched any more" in text
    assert "no test row" not in text

def test_what_is_not_out_of_fold_is_refused(bundle):
    learn, said = load_bundle(bundle), out_of_fold()
    before = learn.threshold, learn.temperature, dict(learn.card)
    for odd, why in ((said.drop(columns="fold"), "never chosen on a hold-out test"), # of a study of one split
                     (said.assign(fold=0), "never chosen on a hold-out test"),
                     (said.assign(side="valid"), "of valid rows"),
                     (pd.concat([said, said.head(3).assign(side="train")]), "3 of these .* are of train rows")):
        with pytest.raises(LeakError, match=why): settle_out_of_fold(learn, odd, "youden")
    with pytest.raises(ValueError, match="no column probability"):
        settle_out_of_fold(learn, said.drop(columns="probability"), "youden")
    with pytest.raises(ValueError, match="neither a number"): settle_out_of_fold(learn, said, "specificty=.9")
    with pytest.raises(ValueError, match="of one class"): settle_out_of_fold(learn, said.assign(label=0), "youden")
    assert before == (learn.threshold, learn.temperature, learn.card)
    assert settle_out_of_fold(learn, said, .3).threshold == .3
