import pandas as pd
from types import SimpleNamespace
from cxr_fastai.report.html import Page
from cxr_fastai.report.searched import tuned_words, tuning, tuning_note

TUNED = ["resnet50:lr=0.00213:epochs=12:ps=0.31:fusion=film:trials=30:search=a", "vgg16:lr=0.001:epochs=1:trials=30"]
SETTINGS = dict(tuned=TUNED, arms=["real", "meta", "real-synth"], primary=None, seeds=[3, 4, 5])

def test_words_say_what_holds_for_each_backbone():
    assert tuned_words(TUNED) == ("resnet50: base rate 0.00213, 12 epochs, dropout 0.31, fusion 'film'; "
                                  "vgg16: base rate 0.001, 1 epoch")

def test_the_note_says_which_arm_and_rows_and_seeds_searched():
    said = tuning_note(SETTINGS)
    assert "30 trials a backbone, with Real alone" in said and "valid rows, mean over seeds 3, 4." in said
    assert "Real-Meta alone" in tuning_note(SETTINGS | dict(arms=["real-synth-meta+1/8"]))
    assert "Real alone" in tuning_note(SETTINGS | dict(primary=["meta", "real"])) # the first that sees films
    assert "Meta alone" in tuning_note(SETTINGS | dict(arms=["meta"]))
    assert tuning_note(SETTINGS | dict(tuned=None)) == "" == tuning_note({})

def test_the_section_is_there_with_a_search_alone(tmp_path):
    study, page = SimpleNamespace(folder=tmp_path, settings=SETTINGS | dict(tuned=None)), Page(tmp_path, [])
    tuning(study, page)
    assert not page.sections
    study.settings = SETTINGS
    tuning(study, page)
    assert [o["shape"] for o in page.sections[0]["parts"]] == ["text"] # elsewhere searched
    pd.DataFrame(dict(search=["a", "a"], backbone="resnet50", trial=[1, 2], lr=[1.23456e-4, 2e-3], rocauc=[.7, None],
                      chosen=["yes", "no"])).to_csv(tmp_path/"tune.csv", index=False)
    tuning(study, page)
    table = page.sections[1]["parts"][1]
    assert table["shape"] == "table" and table["bodies"][0]["rows"][1][-2:] == ["–", "no"]
    assert table["bodies"][0]["rows"][0][-3:] == ["0.000123", "0.700", "yes"] and table["heads"][-2] == "ROC-AUC"
