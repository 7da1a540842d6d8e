import pandas as pd, pytest
from cxr_fastai.gan.losses import DIFFAUG
from cxr_fastai.gan.pipeline import gan_folder
from cxr_fastai.gan.suited import FEW, suited, suited_words, whole_steps
from cxr_fastai.settings import DIFFAUGS, Gan, plan_from, plan_of

def table(train=(40, 20), valid=(10, 8)):
    "Rows of as many patients of each class."
    parts = [dict(split=s, label=o, patient_id=f"{s}{o}{i}", image=f"{s}{o}{i}.png")
             for s, ns in (("train", train), ("valid", valid)) for o, n in zip(("Normal", "Pneumonia"), ns)
             for i in range(n)]
    rows = pd.DataFrame(parts)
    return rows.assign(label=pd.Categorical(rows["label"], ["Normal", "Pneumonia"], ordered=True))

@pytest.mark.parametrize("valid, select", [((10, 8), "kid"), ((8, 9), "kid"), ((10, 7), "last"), ((7, 10), "last"),
                                           ((0, 0), "last")])
def test_an_epoch_is_picked_where_there_are_patients_to_tell(valid, select):
    rows = table(valid=valid)
    assert suited(Gan(), rows).select == select and suited(Gan(select="last"), rows).select == "last"
    said = [o for o in suited_words(Gan(), rows) if "pick an epoch" in o]
    assert len(said) == (select == "last") and not [o for o in suited_words(Gan(select="last"), rows) if "pick" in o]
    if select == "kid": assert suited(Gan(select="kid"), rows).select == "kid"
    else:
        assert f"{min(valid)} " in said[0] and "the last one is taken" in said[0]
        with pytest.raises(ValueError, match="select='kid' compares .* of them are .*; 8 are needed: take 'last'"):
            suited(Gan(select="kid"), rows)

def test_patients_are_counted_and_not_their_films():
    rows = table(valid=(10, 40))
    assert suited(Gan(), rows.assign(patient_id=[o[:-1] for o in rows.patient_id])).select == "last"

@pytest.mark.parametrize("n, on", [(1, True), (FEW - 1, True), (FEW, False)])
def test_few_films_are_shown_changed(n, on):
    rows = table(train=(300, n))
    own = suited(Gan(), rows)
    assert own.training.get("diffaug", "") == ("translation,cutout" if on else "")
    assert any("are few" in o for o in suited_words(Gan(), rows)) == on
    assert suited(Gan(diffaug="none"), rows).training == Gan().training | dict(select="kid", judge="auto")
    assert suited(Gan(diffaug="cutout"), rows).training["diffaug"] == "cutout"

def test_steps_cut_what_is_longer_and_nothing_else():
    rows, gan = table(), Gan(epochs=3) # of 10 steps each
    assert whole_steps(gan, rows) == 30
    assert [suited(gan.replace(steps=o), rows).steps for o in (1, 29, 30, 31, None)] == [1, 29, None, None, None]
    assert any(o.startswith("29 steps of the 30") for o in suited_words(gan.replace(steps=29), rows))

def test_settled_settings_stay_and_name_the_folder(rows, tmp_path):
    gan = Gan(size=32, select="last", diffaug="none")
    own = lambda **more: gan_folder(rows, tmp_path, gan.replace(**more)).name
    assert suited(gan, rows) == gan and own() == own(weights="none") == own(steps=10**6)
    assert len({own(), own(steps=7), own(diffaug="cutout"), own(diffaug=None)}) == 4
    many = pd.concat([rows, rows[rows["split"] == "test"].assign(split="valid", patient_id=range(900, 900 + sum(
        rows["split"] == "test")), image=[f"v{o}" for o in range(sum(rows["split"] == "test"))])], ignore_index=True)
    names = {gan_folder(many, tmp_path, gan.replace(select=o)).name for o in ("last", "kid", None)}
    assert len(names) == 2 # where it isn't said, it is 'kid' here

def test_words_that_are_not_known_are_refused():
    assert set(DIFFAUGS) == {"none", *DIFFAUG}
    for given, said in ((dict(select="best"), "select='best' is not known; use kid or last"),
                        (dict(diffaug="cutoff"), "diffaug='cutoff' is not known.*cutout"),
                        (dict(diffaug="none,cutout"), "'none' stands alone"), (dict(steps=0), "steps=0 must be 1")):
        with pytest.raises(ValueError, match=said): Gan(**given)

def test_a_study_keeps_them():
    plan = plan_of(gan_steps=50, gan_select="kid", gan_diffaug="translation, cutout")
    assert plan.gan.diffaug == ("translation", "cutout") and plan_from(plan.flags()) == plan
    assert plan.gan.training["steps"] == 50 and plan_of().gan.steps is None
