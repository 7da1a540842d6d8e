from pathlib import Path
import numpy as np, pandas as pd, pytest
from cxr_fastai.report.notes import drawn_note, leaky_note, plan_note, shortcut_note, split_note
from .test_checklist import SETTINGS, twelve

@pytest.fixture
def rows(): return twelve()

def test_drawn_films_are_said_and_those_of_before_by_their_name():
    assert drawn_note(SETTINGS) == "" and "say nothing" in drawn_note(SETTINGS | dict(drawn=True))
    before = {k: v for k, v in SETTINGS.items() if k != "drawn"}
    assert drawn_note(before) == "" and "say nothing" in drawn_note(before | dict(data="phantom of 80"))

def test_how_rows_came_to_their_sides():
    assert split_note({}) is None and split_note(dict(split={})).startswith("The table came with its split")
    assert split_note(SETTINGS) == ("At random by patient, stratified by label, 30% to test and 20% of the rest to "
                                    "valid (seed 7)")

def test_a_note_of_leaks_is_of_what_is_there(rows):
    paper = dict(SETTINGS, protocol="paper")
    assert leaky_note(SETTINGS, rows) == "" and "CycleGAN saw every row" in leaky_note(paper, rows)
    assert "patients" not in leaky_note(paper, rows) # here none has two films
    twice = leaky_note(dict(paper, arms=["real"]), rows.assign(patient_id=["1"]*12))
    assert "1 of 1 patients are on several sides" in twice and "CycleGAN" not in twice
    assert "no patient is on two sides" in leaky_note(dict(paper, arms=["real"]), rows)

def test_looks_are_counted_where_the_ledger_is_beside_the_study(tmp_path, monkeypatch):
    plan = dict(digest="a", time="now", backbones=["net"], arms=["real"], seeds=[0], primary=None, test_rows="b")
    assert plan_note(plan, tmp_path).endswith("isn't beside this study's folder.") # it was handed on alone
    (tmp_path/"ledger.csv").write_text("test_rows,results\nb,1\nb,2\nc,3\n")
    monkeypatch.chdir(tmp_path)
    assert plan_note(plan, Path(".")).endswith(f"that {tmp_path.name} knows of: 2.")

def test_which_group_is_iller_is_counted(rows):
    many = pd.concat([rows.assign(image=rows.image + str(i), split="test") for i in range(9)], ignore_index=True)
    ill = many["label"] == "Pneumonia"
    for more, less in (("AP", "PA"), ("PA", "AP")):
        note = shortcut_note(SETTINGS, many.assign(view=np.where(ill & (many.index % 4 > 0), more, less)))
        assert f"Pneumonia is commoner where view is {more}" in note and "Meta" not in note
    plain = shortcut_note(dict(SETTINGS, arms=["meta"]),
                          many.assign(view=np.where(many.index % 2, "AP", "PA"), sex="F"))
    assert "commoner" not in plain and "Meta, which sees no film" in plain
