import pandas as pd, pytest
from cxr_fastai.core.csvs import write_csv
from cxr_fastai.settings import plan_of
from cxr_fastai.study.grid import Study
from cxr_fastai.study.printed import _gains, _shortcuts, _table1, plan_text

NETS, ARMS = ["vit_small_patch14_reg4_dinov2.lvd142m", "resnet50"], ["Real", "Meta", "Real-Meta", "Ensemble"]

def metrics(nets=NETS, **more):
    lines = [dict(backbone=b, arm=a, n=90, positives=22, recall="0.9091 [0.7734, 1.0000] sd 0.123",
                  specificity="0.162 [0.074, 0.250]", rocauc="0.570 [0.429, 0.700]", recall_at_90="-",
                  brier="0.274 [0.265, 0.282]", weights="none", seeds=3, exploratory="no") for b in nets for a in ARMS]
    return pd.DataFrame(lines).assign(**more)

def test_table_1_has_each_arm_once_and_fits(capsys):
    _table1(metrics(), "mean over seeds")
    said = capsys.readouterr().out
    head, columns, *lines = said.strip().splitlines()
    assert head.startswith("Table 1: every arm on 90 test films, 22 positive; mean over seeds, weights none")
    assert columns.split() == "arm recall specificity ROC-AUC recall at 90% spec.".split()
    assert [o for o in lines if not o.startswith(" ")] == NETS and len(lines) == 2*(1 + len(ARMS))
    assert max(map(len, said.splitlines())) <= 100 and " sd " not in said and "0.9091" not in said and "|" not in said

def test_what_differs_between_arms_is_a_column(capsys):
    _table1(metrics(weights=["none"]*4 + ["imagenet (timm/resnet50.a1_in1k)"]*4, seeds=[3]*7 + [2]), "mean over seeds")
    said = capsys.readouterr().out
    assert "weights none" not in said and said.count("imagenet (timm") == 4 and "seeds" in said
    assert max(map(len, said.splitlines())) <= 100

def test_gains_are_of_the_models_and_none_is_said_where_there_is_none(capsys):
    _gains(pd.DataFrame({"Model": NETS, "Real": "0.5", "Gain Real to Real-Meta": "+10.0% [-5%, +27%]", "n": 90}))
    said = capsys.readouterr().out.strip().splitlines()
    assert said[0] == "Gain of recall" and said[1].split() == "Model Real to Real-Meta".split() and len(said) == 4
    _gains(pd.DataFrame({"Model": NETS, "Real": "0.5"}))
    assert capsys.readouterr().out == ""

@pytest.mark.parametrize("nets", [["net"], ["net", "other"]])
def test_shortcuts_say_who_beats_them(tmp_path, capsys, nets):
    _shortcuts(tmp_path)
    assert capsys.readouterr().out == ""
    write_csv(pd.DataFrame(dict(shortcut=["border only", "metadata alone"], AUC=["0.5 [0, 1]", "-"], recall="-")),
              tmp_path/"shortcut_table.csv")
    beats = dict(real="yes", meta="no") | {"real-meta": "-"}
    lines = [dict(backbone=b, arm=a, shortcut="border", beats=o) for b in nets for a, o in beats.items()]
    write_csv(pd.DataFrame(lines), tmp_path/"against_shortcuts.csv")
    _shortcuts(tmp_path)
    border, metadata = capsys.readouterr().out.strip().splitlines()[-2:]
    assert border.split("  ")[0] == "border only" and metadata.endswith("-")
    assert border.endswith("Real") if len(nets) == 1 else border.count("1 of 3 arms") == 2

def test_a_plan_is_three_lines(rows, tmp_path):
    own = dict(backbones="test_resnet", arms="meta", size=32, epochs=1, bs=16, weights="none", seeds="0,1")
    text = plan_text(Study(rows, plan_of(**own), tmp_path))
    assert text == ("Plan: Pneumonia against Normal by test_resnet; arms Meta\nseeds 0, 1; 1 epoch, batches of 16\n"
                    "2 cells; protocol 'clean', scored at the last epoch; 2 new cells to run")
    both = plan_text(Study(rows, plan_of(**own | dict(arms="real,real-synth", folds=3, gan_epochs=1)), tmp_path))
    assert "3 folds x 1; films of 32 px, weights none, 1 epoch, batches of 16; CycleGAN of 1 epoch at 32 px" in both
