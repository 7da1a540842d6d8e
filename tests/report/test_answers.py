import numpy as np, pytest
from cxr_fastai.cohort.sampling import split_paper, split_patients
from cxr_fastai.settings import plan_of
from cxr_fastai.study.grid import Study
from cxr_fastai.cohort.rows import read_rows, save_rows, split_method
from cxr_fastai.cohort.folder import data_digest

TINY = dict(size=32, epochs=1, bs=16, weights="none", gan_epochs=1)
BY = dict(method="by patient", stratified=True, test=.3, valid=.2, seed=0)

def about(rows, tmp_path, **kwargs):
    plan = plan_of(backbones="test_resnet", **TINY | {k: o for k, o in kwargs.items() if k != "data"})
    return Study(rows, plan, tmp_path, data=kwargs.get("data", "")).about

def test_a_split_is_signed_and_the_signature_is_saved_and_read(rows, tmp_path):
    assert split_method(rows) == BY and "split_by" not in rows
    save_rows(rows, tmp_path/"r.csv")
    again = read_rows(tmp_path/"r.csv")
    assert split_method(again) == BY and list(again) == list(rows)
    assert data_digest(again.assign(file=rows.file)) == data_digest(rows) # it names no run
    fold = split_method(split_patients(rows, folds=3, fold=1, seed=4))
    assert fold == dict(method="by patient", stratified=True, folds=3, fold=1, valid=.2, seed=4)
    assert split_method(split_paper(rows, 2)) == dict(method="by image", stratified=False, test=.16, valid=.2, seed=2)
    shuffled = rows.sample(frac=1, random_state=0)
    assert split_method(shuffled) == BY

def test_other_sides_or_rows_are_not_what_was_signed(rows, tmp_path):
    by_age = rows.assign(split=np.where(rows.age > 60, "test", np.where(rows.age > 50, "valid", "train")))
    assert by_age.attrs["split"] and split_method(by_age) == {} # pandas passes notes on, whatever becomes of the rows
    assert split_method(rows[rows.split != "valid"]) == split_method(rows.drop(columns="split")) == {}
    for table in by_age, rows.drop(columns="split").assign(split="train"):
        save_rows(table, tmp_path/"r.csv")
        assert split_method(read_rows(tmp_path/"r.csv")) == {} and "split_by" not in (tmp_path/"r.csv").read_text()
    save_rows(rows, tmp_path/"r.csv")
    (tmp_path/"r.csv").write_text((tmp_path/"r.csv").read_text().replace(",train,", ",test,", 1))
    assert split_method(read_rows(tmp_path/"r.csv")) == {}
    (tmp_path/"r.csv").write_text((tmp_path/"r.csv").read_text().replace('{""method', '{method'))
    with pytest.raises(ValueError, match="'split_by' isn't as save_rows wrote"): read_rows(tmp_path/"r.csv")

def test_a_study_says_what_it_knows_of_its_rows(rows, tmp_path):
    s = about(rows, tmp_path)
    assert s["split"] == BY and s["drawn"] is False
    assert s["training"] == dict(freeze_epochs=1, ps=.5, meta_dropout=.1, n_meta=32)
    assert s["gan_training"]["epochs"] == 1 and s["gan_training"]["bs"] == 4 and s["gan_training"]["lr"] == 2e-4
    assert about(rows, tmp_path, protocol="paper", split_seed=3)["split"]["method"] == "by image"
    assert about(rows.assign(split=rows.split.replace("valid", "test").where(rows.index > 20, "valid")),
                 tmp_path)["split"] == {}
