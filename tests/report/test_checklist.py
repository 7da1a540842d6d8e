import numpy as np, pandas as pd, pytest
from cxr_fastai.report.checklist import CLAIM, TRIPOD_AI, characteristics, checklist

FILL = "the author's to fill"
ARMS = ["real", "real-meta", "real-synth-meta", "real-meta+focal", "real-synth-meta+1/8"]
SETTINGS = dict(backbones=["resnet50"], arms=ARMS, seeds=[0, 1, 2], protocol="clean", epoch_rule="last", data="nih",
                positive="Pneumonia", negative="Normal", size=64, epochs=3, bs=16, lr=1e-3, fusion="film", gan="fast",
                cat_names=["sex", "view"], cont_names=["age"], split_seed=7, gan_size=64, metadata="matched",
                drawn=False,
                split=dict(method="by patient", stratified=True, test=.3, valid=.2, seed=7),
                weights_of=dict(resnet50="auto"),
                training=dict(freeze_epochs=1, ps=.5, meta_dropout=.1),
                gan_training=dict(epochs=30, bs=4, lr=2e-4, lam=2., identity=0., ngf=32, residual=True),
                versions=dict(cxr_fastai="0.1", torch="2.15"))

def twelve():
    label = pd.Categorical(["Normal", "Normal", "Pneumonia"]*4, ["Normal", "Pneumonia"], ordered=True)
    return pd.DataFrame(dict(image=[f"{i}.png" for i in range(12)], patient_id=[str(i) for i in range(12)], label=label,
                             age=[30., 40, np.nan]*4, sex=["F", "M", "F"]*4, view=["AP", "PA", None]*4,
                             split=["train"]*6 + ["valid"]*3 + ["test"]*3))

@pytest.fixture
def rows(): return twelve()

PLAN = dict(primary=["real-meta", "real-synth-meta"], alpha=.05, time="2026-01-02T03:04:05+00:00")

def answers(rows, weights=("none", "imagenet", None), **changes):
    flow = pd.DataFrame(dict(step=["with an image", "drawn for the cohort", "train"], rows=[50, 12, 6]))
    cells = pd.DataFrame(dict(weights=weights, error=None))
    table = checklist(SETTINGS | changes, rows, flow, cells, PLAN
                      if "real-synth-meta" in changes.get("arms", ARMS) else None)
    return {(o.checklist, o.item): o.answer for o in table.itertuples()}

def test_every_item_is_there_once_and_in_order():
    assert [o for o, *_ in CLAIM] == [str(i) for i in range(1, 45)]
    numbers, main = [o for o, *_ in TRIPOD_AI], lambda o: int(o.rstrip("abcdefg"))
    assert len(set(numbers)) == len(numbers) == 52 and {main(o) for o in numbers} == {*range(1, 28)}
    assert numbers == sorted(numbers, key=lambda o: (main(o), o))

def test_what_no_file_can_answer_is_left_to_the_author(rows):
    found = answers(rows)
    assert all(found["CLAIM 2024", o] == FILL for o in ("1", "2", "11", "14", "16", "33", "34", "40", "44"))
    assert all(found["TRIPOD+AI", o] == FILL for o in ("1", "5b", "8a", "17", "18a", "19", "26", "27b"))
    assert sum(o != FILL for o in found.values()) > 45 and all(isinstance(o, str) and o for o in found.values())

def test_answers_are_of_the_settings_and_tables(rows):
    found = answers(rows)
    claim = lambda o: found["CLAIM 2024", str(o)]
    assert claim(8) == "with an image: 50 rows; drawn for the cohort: 12 rows."
    assert "age in 4" in claim(12) and "view in 4" in claim(12) and "sex in 0" in claim(12)
    assert claim(19) == ("At random by patient, stratified by label, 30% to test and 20% of the rest to valid (seed 7);"
                         " no classifier here and no CycleGAN is fitted on a test row: train 6, valid 3, test 3.")
    assert claim(20).startswith("By patient: none of 12 is on two sides")
    assert "test: 3 rows, 1 positive" in claim(21) and "'film'" in claim(22)
    assert claim(23) == "cxr_fastai 0.1, torch 2.15."
    assert "none, imagenet" in claim(24) and "0, 1, 2" in claim(24) and "3 epochs" in claim(25)
    head = "After 1 epoch of the head alone with the body frozen where the body's weights are pretrained"
    assert claim(25).startswith(head)
    assert "10% of the values are masked" in claim(25) and "CycleGAN: 30 epochs" in claim(25)
    assert "3 models" in claim(25)
    imbalance = found["TRIPOD+AI", "13"]
    assert "real-meta+focal" in claim(30) and "33% positive" in imbalance and "focal" in imbalance
    assert "1/8" not in imbalance.split("variants")[1]

def test_tests_are_told_of_arms_that_were_compared_alone(rows):
    of = lambda *arms, **more: answers(rows, arms=list(arms), **more)["CLAIM 2024", "29"]
    assert "Holm's correction" in of("real-meta", "real-synth-meta") and "over trainings, too" in of("real", "meta")
    assert of("real", seeds=[0]) == ("95% intervals of each arm over the test patients; one seed, so that no luck of "
                                     "training is covered; no arms are compared.")

def test_a_leaky_split_is_told_as_one(rows):
    by_image = dict(method="by image", stratified=False, test=.16, valid=.2, seed=7)
    found = answers(rows.assign(patient_id=["1"]*12), protocol="paper", epoch_rule="best", split=by_image)
    assert found["CLAIM 2024", "20"] == "Not by patient: 1 of 1 are on several sides."
    assert "by image" in found["CLAIM 2024", "19"] and "the CycleGAN saw every row" in found["CLAIM 2024", "19"]
    assert "valid rows' AUC" in found["CLAIM 2024", "26"]

def test_drawn_films_are_no_data_source_and_no_plan_is_no_hypothesis(rows):
    source = lambda **o: answers(rows, **o)["CLAIM 2024", "7"]
    assert all(source(drawn=True, data=o).startswith("No patients") for o in ("data/phantom", ""))
    assert source(data="phantom").startswith("Read from phantom;") and source(data="").startswith("Read from a table;")
    aim = answers(rows)["CLAIM 2024", "4"]
    assert answers(rows, arms=["real"])["CLAIM 2024", "4"] == FILL and "2026-01-02" in aim
    assert "Real-Meta against Ensemble" in aim

def test_a_split_is_told_as_it_was_signed_or_left_to_the_author(rows):
    came = answers(rows, split={})
    assert came["CLAIM 2024",
                "19"].startswith("The table came with its split; how that was made is for the author to say; no")
    assert all(came[o] == FILL for o in (("CLAIM 2024", "32"), ("TRIPOD+AI", "16")))
    told = " ".join(came.values())
    assert "random by" not in told and "stratified" not in told and "split at random" not in told
    fold = dict(method="by patient", stratified=True, folds=5, fold=2, valid=.2, seed=3)
    assert "fold 2 of 5 to test and 20% of the rest to valid (seed 3)" in answers(rows, split=fold)["CLAIM 2024", "19"]
    old = {k: v for k, v in SETTINGS.items()
           if k not in ("split", "drawn", "training", "gan_training", "weights_of")} # of a version before
    flow, cells = pd.DataFrame(dict(step=["in the table"], rows=[12])), pd.DataFrame(dict(weights=["none"]))
    before = checklist(old, rows, flow, cells).set_index(["checklist", "item"]).answer
    assert before["CLAIM 2024", "19"] == FILL

def test_an_arm_that_was_not_run_is_in_no_answer(rows):
    images = " ".join(answers(rows, weights=["none"], arms=["real"]).values())
    assert not any(o in images for o in ("perceptron", "CycleGAN", "merged", "one-hot", "Ensemble", "frozen", "masked",
                                         "warp", "Meta"))
    assert "No arm reads metadata." in images
    words = " ".join(answers(rows, weights=["none"], arms=["meta"]).values())
    assert not any(o in words for o in ("Films: one", "timm on", "merged", "Weights of the backbones", "no flip"))
    assert "a perceptron on the metadata." in words and "beside metadata alone" in words
    assert "some warp in the arms '+augment'" in answers(rows, arms=["real+augment"])["CLAIM 2024", "9"]
    masked = answers(rows, arms=["real-synth-meta+missing"])
    assert "real rows of the other label are masked" in masked["CLAIM 2024", "12"]
    assert "'film'" in answers(rows)["CLAIM 2024", "22"]
    assert "'gated', 'film'" in answers(rows, arms=["real-meta+gated", "real-meta"])["CLAIM 2024", "22"]

def test_of_a_weights_file_it_is_not_known_what_it_was_fitted_on(rows):
    found = answers(rows, weights_of=dict(resnet50="mine.pth", vgg16="imagenet"))
    assert "what the weights that resnet50 began with were fitted on isn't known" in found["CLAIM 2024", "19"]
    assert "What the weights of resnet50 were fitted on isn't known here" in found["CLAIM 2024", "24"]
    assert "isn't known" not in answers(rows, arms=["meta"], weights_of=dict(resnet50="mine.pth"))["CLAIM 2024", "19"]

def test_characteristics_of_the_sides(rows):
    table = characteristics(rows).set_index("of")
    assert list(table.columns) == ["all", "train", "valid", "test"]
    assert table.loc["images"].tolist() == ["12", "6", "3", "3"] and table.loc["patients", "train"] == "6"
    assert table.loc["Pneumonia", "all"] == "4 (33%)" and table.loc["sex F", "test"] == "2 (67%)"
    assert table.loc["age, median [quartiles]", "train"] == "35 [30, 40]"
    assert table.loc["view missing", "valid"] == "1 (33%)"

def test_a_side_without_rows_has_no_share(rows):
    assert characteristics(rows[rows["split"] != "valid"]).set_index("of").loc["Pneumonia", "valid"] == "0"
