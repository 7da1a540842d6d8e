import shutil
import torch
from collections import namedtuple
from torch import nn
from cxr_fastai import doctor as room
from cxr_fastai.models.backbone import create_backbone
from cxr_fastai.cohort.folder import load_cohort
from cxr_fastai.doctor import doctor, kept_bytes, needs
from cxr_fastai.settings import plan_of
from cxr_fastai.stats.expected import smallest_gain
from cxr_fastai.stats.power import Setting
from cxr_fastai.cohort.signs import RadiographError

TINY = dict(backbones="test_resnet", size=32, bs=16, weights="none", arms="real-meta")

def of(found, check): return next(o for o in found if o.check == check)

def test_a_run_that_fits_has_no_fail(tmp_path):
    found = doctor(out=str(tmp_path), **TINY)
    assert not found.failed and {o.status for o in found} <= {"ok", "warn"}
    assert "cells of test_resnet 1 x " in of(found, "time").found and "GB of memory" in of(found, "time").found
    assert "300 films" in of(found, "data").found and "test_resnet: none" in of(found, "weights").found
    assert not list(tmp_path.iterdir())

def test_what_is_not_there_fails_in_words(tmp_path):
    assert of(doctor(data=str(tmp_path/"nowhere"), **TINY), "data").status == "FAIL"
    assert of(doctor(**TINY | dict(backbones=f"test_resnet={tmp_path}/no.pth")), "weights").status == "FAIL"
    assert of(doctor(**TINY | dict(arms="nonsense")), "flags").status == "FAIL"
    assert "resnet5" in of(doctor(**TINY | dict(backbones="resnet5")), "weights").found

def test_imagenet_weights_that_cannot_be_had_fail_and_auto_warns(monkeypatch):
    monkeypatch.setattr(room, "_hub_has", lambda cfg: False)
    assert [of(doctor(**TINY | dict(weights=o)), "weights").status for o in ("imagenet", "auto")] == ["FAIL", "warn"]

def test_the_precision_that_is_taken_and_why(monkeypatch):
    said = lambda precision, best: [
        monkeypatch.setattr(room, "fastest_precision", lambda device: best),
        monkeypatch.setattr("cxr_fastai.fit.precision.fastest_precision", lambda device: best),
        *room._precision(precision)][-1]
    assert said("auto", "fp16").found == "fp16: --precision auto, and " + room.FASTEST["fp16"]
    assert [said(*o).status for o in (("auto", "fp16"), ("fp32", "bf16"), ("bf16", "bf16"))] == ["ok"]*3
    assert said("bf16", "fp16").todo == "--precision fp16 is faster here"
    assert said("fp16", "fp32").todo == "--precision fp32 is faster here"

def test_a_full_disk_and_memory_fail(monkeypatch, tmp_path):
    monkeypatch.setattr(room, "free_memory", lambda: 10_000_000)
    monkeypatch.setattr(shutil, "disk_usage",
                        lambda path: namedtuple("U", "total used free")(10**6, 10**6 - 1000, 1000))
    found = doctor(out=str(tmp_path), **TINY)
    assert of(found, "memory").status == of(found, "out").status == "FAIL"
    assert "--bs smaller" in of(found, "memory").todo

def test_a_tracker_that_is_not_there_fails(monkeypatch):
    monkeypatch.setattr(room, "find_spec", lambda name: None)
    found = doctor(**TINY, track="wandb", relabel=True, groups="nowhere")
    assert of(found, "wandb").todo == "pip install 'cxr_fastai[wandb]'"
    assert of(found, "cleanlab").todo == "pip install 'cxr_fastai[labels]'"
    assert "'nowhere' is no column that makes groups" in of(found, "flags").found

def test_the_smallest_gain_that_a_study_would_find():
    two, rows = TINY | dict(arms="real-meta,real-synth-meta"), load_cohort("phantom")
    said = lambda rows=rows, **flags: [o.found for o in room._gain(plan_of(**two | flags), rows)]
    ill, well = 22, 68
    assert said(seeds="0,1,2")[0].startswith(f"a gain of {smallest_gain(Setting(ill, well)):.3f} AUC or more")
    assert said(arms="real-meta") == said(protocol="paper") == said(rows=None) == []
    assert "1 of the 3 seeds" in said()[0] and "75 + 225 patients in 5 folds, 2 seeds" in said(
        rows.drop(columns="split").assign(fold=0), folds=5, repeats=2)[0]
    assert "negatives=0" in said(rows[rows["label"] == "Pneumonia"], seeds="0,1,2")[0]
    assert smallest_gain(Setting(ill, well), backbones=2) > smallest_gain(Setting(ill, well))

def test_the_doctor_says_it(tmp_path):
    arms = dict(arms="real-meta,real-meta+focal", seeds="0,1,2", out=str(tmp_path))
    assert of(doctor(**TINY | arms), "gain").status == "ok"

def test_kept_bytes_by_hand():
    model = nn.Sequential(nn.Linear(10, 20, bias=False), nn.ReLU())
    assert kept_bytes(model, torch.zeros(3, 10)) == 3*10*4 + 3*20*4

def test_needs_grow_with_the_batch_the_seeds_and_the_arms(rows):
    body = dict(test_resnet=create_backbone("test_resnet", "none", 32))
    need = lambda **kwargs: needs(rows, body, plan_of(**TINY | kwargs))
    assert need(bs=64)["memory"] > need()["memory"] and need(seeds="0,1")["out"] > need()["out"]
    assert need()["cells"] == 1
    assert need(arms="real,meta,real-synth-meta", seeds="0,1")["cells"] == 6
    assert need(arms="real-synth-meta")["cache"] > need()["cache"]

def test_films_that_cannot_be_read_are_all_named(monkeypatch):
    def read(file, size): raise RadiographError(f"{file} is odd")
    monkeypatch.setattr(room, "read_radiograph", read)
    found = of(doctor(**TINY), "films")
    assert found.status == "FAIL" and "8 of 8 can't be read" in found.found and found.found.count("is odd") == 3

def test_the_metadata_that_a_table_has_is_said(rows, tmp_path):
    assert of(doctor(**TINY), "metadata").found == "sex, view, age"
    for o in rows.itertuples():
        place = tmp_path/("sick" if o.label == "Pneumonia" else "healthy")
        place.mkdir(exist_ok=True)
        shutil.copy(o.file, place)
    found = doctor(data=str(tmp_path), **TINY)
    assert of(found, "metadata").status == "warn" and "80 films, 28 sick" in of(found, "data").found
