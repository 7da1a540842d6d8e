import pandas as pd, pytest
from cxr_fastai.cli import main
from cxr_fastai.report.planned import plan_study, plot_power
from cxr_fastai.stats.power import Setting, simulated

FEW = dict(positives=60, negatives=150, test=.5, studies=12)

def files(folder): return {o.name: o.read_bytes() for o in folder.iterdir()}

def test_it_says_and_writes_what_a_study_would_find(tmp_path, capsys):
    assert plan_study(**FEW, gain=.1, out=str(tmp_path/"a")) == tmp_path/"a"/"power.png"
    said, table = capsys.readouterr().out, pd.read_csv(tmp_path/"a"/"power.csv")
    known = simulated(Setting(30, 75), .8, .1, studies=12)
    assert "In test: 30 + 75 patients, 3 seeds, luck 0.1. 12 studies" in said
    at = table[table["gain"] == .1].iloc[0]
    assert at["found"] == pytest.approx((known["says"] == "gain").mean())
    assert at["difference_width"] == pytest.approx((known["high"] - known["low"]).mean())
    assert f"is found in {100*at['found']:.1f}% (" in said and "calibration slope" in said
    assert table["gain"].is_monotonic_increasing and table["gain"].iloc[0] == 0 and table["gain"].iloc[-1] >= .2*.95
    plan_study(**FEW, gain=.1, out=str(tmp_path/"b"))
    assert files(tmp_path/"a") == files(tmp_path/"b")
    assert sorted(files(tmp_path/"a")) == ["power.csv", "power.png", "power.svg", "validation.csv"]

def test_the_verb_takes_folds(tmp_path, capsys):
    words = "plan --positives 40 --negatives 60 --auc .7 --gain .2 --seeds 1 --folds 4 --backbones 2 --studies 2 --out"
    assert main([*words.split(), str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "40 + 60 patients in 4 folds, 1 seed" in said and f"The figure is {tmp_path}/power.png" in said

@pytest.mark.parametrize("words, said", [
    ("--gain 0", "gain=0 must"), ("--gain .2", "gain=0.2 must"), ("--auc 1.2", "auc=1.2 must"),
    ("--gain nan", "gain=nan"),
    ("--positives 20", "6 of the 10 positive test patients"), ("--seeds 2", "2 of the 3 seeds"),
    ("--studies 0", "studies=0"), ("--backbones 0", "backbones=0"), ("--alpha 2", "alpha=2"), ("--folds 2", "folds=2"),
    ("--folds 5 --test .3", "test=0.3 is of one split"),
    ("--prevalence 1", "prevalence=1"), ("--threshold 0", "threshold=0"), ("--auc .3", "AUC of 0.35"),
    ("--seed -1", "seed=-1"), ("--auc nan", "auc=nan"), ("--films two", "films='two'")])
def test_numbers_that_are_none_are_one_sentence(words, said, tmp_path, capsys):
    assert main(["plan", *words.split(), "--out", str(tmp_path/"no")]) == 1
    told = capsys.readouterr().err
    assert told.startswith("cxr-fastai plan: ") and said in told and told.count("\n") == 1
    assert not (tmp_path/"no").exists()

def test_a_place_that_is_a_file_is_named_before_anything_is_simulated(tmp_path, capsys):
    (tmp_path/"file").write_text("mine")
    assert main(["plan", "--studies", "1000000", "--out", str(tmp_path/"file")]) == 1
    assert str(tmp_path/"file") in capsys.readouterr().err and (tmp_path/"file").read_text() == "mine"

def test_the_band_is_simulations_error():
    ends = dict(found_low=[.05, .8], found_high=[.2, .95])
    table = pd.DataFrame(dict(gain=[0, .1], found=[.1, .9], expected=[.1, .9], studies=[40, 40]) | ends)
    ax = plot_power(table).axes[0]
    band = ax.collections[0].get_paths()[0].vertices
    assert {tuple(o) for o in band} >= {(0, .05), (.1, .8), (0, .2), (.1, .95)}
