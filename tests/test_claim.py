import numpy as np, pandas as pd, pytest
from cxr_fastai.claim import CLAIM, TRIPOD_AI, characteristics, checklist

FILL = "the author's to fill"
ARMS = ["real", "real-meta", "real-synth-meta", "real-meta+focal", "real-synth-meta+1/8"]
SETTINGS = dict(backbones=["resnet50"], arms=ARMS, seeds=[0, 1, 2], protocol="clean", epoch_rule="last", data="nih",
                positive="Pneumonia", negative="Normal", size=64, epochs=3, bs=16, lr=1e-3, fusion="film", gan="fast",
                cat_names=["sex", "view"], cont_names=["age"], split_seed=7,
                versions=dict(cxr_fastai="0.1", torch="2.15"))

@pytest.fixture
def rows():
    label = pd.Categorical(["Normal", "Normal", "Pneumonia"]*4, ["Normal", "Pneumonia"], ordered=True)
    return pd.DataFrame(dict(image=[f"{i}.png" for i in range(12)], patient_id=[str(i) for i in range(12)], label=label,
                             age=[30., 40, np.nan]*4, sex=["F", "M", "F"]*4, view=["AP", "PA", None]*4,
                             split=["train"]*6 + ["valid"]*3 + ["test"]*3))

def answers(rows, **changes):
    flow = pd.DataFrame(dict(step=["with an image", "drawn for the cohort", "train"], rows=[50, 12, 6]))
    cells = pd.DataFrame(dict(weights=["none", "imagenet", None]))
    table = checklist(SETTINGS | changes, rows, flow, cells)
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
    assert "by patient" in claim(19) and "seed 7" in claim(19) and "train 6, valid 3, test 3" in claim(19)
    assert claim(20).startswith("By patient: none of 12 is on two sides")
    assert "test: 3 rows, 1 positive" in claim(21) and "'film'" in claim(22)
    assert claim(23) == "cxr_fastai 0.1, torch 2.15."
    assert "none, imagenet" in claim(24) and "0, 1, 2" in claim(24) and "3 epochs" in claim(25)
    imbalance = found["TRIPOD+AI", "13"]
    assert "real-meta+focal" in claim(30) and "33% positive" in imbalance and "focal" in imbalance
    assert "1/8" not in imbalance.split("variants")[1]

def test_a_leaky_split_is_told_as_one(rows):
    found = answers(rows.assign(patient_id=["1"]*12), protocol="paper", epoch_rule="best")
    assert found["CLAIM 2024", "20"] == "Not by patient: 1 of 1 are on several sides."
    assert "by image" in found["CLAIM 2024", "19"] and "CycleGAN that saw all" in found["CLAIM 2024", "19"]
    assert "valid rows' AUC" in found["CLAIM 2024", "26"]

def test_drawn_films_are_no_data_source_and_no_comparison_is_no_hypothesis(rows):
    assert answers(rows, data="phantom (drawn)")["CLAIM 2024", "7"].startswith("No patients")
    assert answers(rows, data="phantoms/nih")["CLAIM 2024", "7"].startswith("Read from phantoms/nih")
    assert answers(rows, arms=["real"])["CLAIM 2024", "4"] == FILL and "Real-Meta" in answers(rows)["CLAIM 2024", "4"]

def test_characteristics_of_the_sides(rows):
    table = characteristics(rows).set_index("of")
    assert list(table.columns) == ["all", "train", "valid", "test"]
    assert table.loc["images"].tolist() == ["12", "6", "3", "3"] and table.loc["patients", "train"] == "6"
    assert table.loc["Pneumonia", "all"] == "4 (33%)" and table.loc["sex F", "test"] == "2 (67%)"
    assert table.loc["age, median [quartiles]", "train"] == "35 [30, 40]"
    assert table.loc["view missing", "valid"] == "1 (33%)"

def test_a_side_without_rows_has_no_share(rows):
    assert characteristics(rows[rows["split"] != "valid"]).set_index("of").loc["Pneumonia", "valid"] == "0"
