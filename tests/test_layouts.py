"Twelve sets of films as they lie on a disk, each from one command to its report, with the right guess."
import pandas as pd, pytest
from cxr_fastai.cli import main
from cxr_fastai.cohort.folder import load_cohort
from cxr_fastai.cohort.rows import classes, columns_of, read_rows
from cxr_fastai.core.style import save_figure
from cxr_fastai.report import html
from conftest import make_rows
from layouts import lay_out, LAYOUTS

NIHS = ["sex", "view"], ["age"]
FOUND = { # name -> rows, patients, classes, metadata
    "nih": (64, 64, ("Normal", "Pneumonia"), NIHS), "kaggle_sample": (64, 64, ("Normal", "Pneumonia"), NIHS),
    "kermany": (80, 64, ("NORMAL", "PNEUMONIA"), ([], [])), "own_folders": (80, 64, ("healthy", "sick"), ([], [])),
    "own_csv": (80, 64, ("normal", "pneumonia"), (["Geschlecht", "Sex", "smoker"], ["Age", "weight"])),
    "chexpert": (64, 64, ("Normal", "Pneumonia"), NIHS), "mimic": (64, 64, ("Normal", "Pneumonia"), (["view"], [])),
    "rsna": (80, 80, ("Normal", "Pneumonia"), ([], [])), "padchest": (64, 64, ("Normal", "Pneumonia"), NIHS),
    "vindr": (80, 80, ("Normal", "Lung Opacity"), ([], [])),
    "openi": (64, 64, ("Normal", "Pneumonia"), (["view"], ["age"])), # of whose csv none has sexes
    "covid": (64, 64, ("Normal", "Pneumonia"), NIHS)}

@pytest.fixture(scope="module")
def drawn(tmp_path_factory): return make_rows(tmp_path_factory.mktemp("drawn"))

def test_there_are_twelve(): assert set(FOUND) == set(LAYOUTS) and len(FOUND) == 12

@pytest.fixture(autouse=True)
def coarse_figures(monkeypatch):
    "Figures of few dots: to draw them is most of a report's time."
    coarse = lambda fig, file, **kwargs: save_figure(fig, file, **kwargs | dict(dpi=20))
    monkeypatch.setattr(html, "save_figure", coarse)

WITH_META = "own_csv", "openi", "kermany", "own_folders" # a table's metadata, a set's, and where there is none

@pytest.mark.slow
@pytest.mark.parametrize("name", FOUND)
def test_one_command_gives_a_report(name, drawn, tmp_path, capsys):
    if name in ("rsna", "vindr"): pytest.importorskip("pydicom")
    data, out = lay_out(name, drawn, tmp_path/"data"), tmp_path/"runs"
    command = f"train test_resnet.r160_in1k --data {data} --size 32 --bs 16 --epochs 1 --weights none"
    command += " --arms real,meta" if name in WITH_META else " --arms real"
    assert main([*command.split(), "--out", str(out)]) == 0
    folder, said = next(out.glob("study-*")), capsys.readouterr().out
    page = (folder/"report.html").read_text(encoding="utf-8")
    assert len(page) > 30_000 and page.count('role="img"') >= 3
    rows, (n, patients, names, columns) = read_rows(folder/"rows.csv"), FOUND[name]
    assert (len(rows), rows.patient_id.nunique(), classes(rows)) == (n, patients, names)
    assert columns_of(rows) == dict(cat_names=columns[0], cont_names=columns[1])
    meta, told = name in WITH_META, columns != ([], [])
    assert pd.read_csv(folder/"cells.csv").arm.tolist() == (["real", "meta"] if meta and told else ["real"])
    assert ("they are left out" in said) == (meta and not told)

def test_labels_and_films_belong_together(drawn, tmp_path):
    "The films' own bytes say which is which."
    data = lay_out("own_csv", drawn, tmp_path)
    rows = load_cohort(str(data)).set_index("image")
    for o in drawn.itertuples():
        assert open(rows.file[o.image], "rb").read() == open(o.file, "rb").read()
        assert rows.label[o.image] == ("pneumonia" if o.label == "Pneumonia" else "normal")
        assert rows.patient_id[o.image] == o.patient_id

def test_one_flag_mends_a_guess(drawn, tmp_path):
    data = str(lay_out("own_csv", drawn, tmp_path))
    assert columns_of(load_cohort(data, cat="smoker")) == dict(cat_names=["smoker"], cont_names=["Age", "weight"])
    assert classes(load_cohort(data, positive="normal")) == ("pneumonia", "normal")
    assert load_cohort(data, patient="Fall").patient_id.is_unique
    assert len(load_cohort(data, normals=10)) == 38

@pytest.mark.slow
def test_explain_predict_and_rerun_take_the_data_of_a_study(drawn, tmp_path, capsys):
    data, out = lay_out("own_csv", drawn, tmp_path/"data"), tmp_path/"runs"
    tiny = "--size 32 --bs 16 --epochs 1 --arms real-meta --weights none"
    assert main(f"train test_resnet.r160_in1k --data {data} {tiny} --cat smoker --out {out}".split()) == 0
    bundle, study = next(out.glob("cells/*/bundle")), next(out.glob("study-*"))
    test = read_rows(study/"rows.csv").query("split == 'test'")
    assert main(f"explain {bundle} --data {data} --cat smoker --max-figures 1 --out {tmp_path}/why".split()) == 0
    assert set(pd.read_csv(tmp_path/"why"/"explanations.csv").image) == set(test.image)
    assert main(f"predict {bundle} --data {data} --out {tmp_path}/said.csv".split()) == 0
    said = pd.read_csv(tmp_path/"said.csv")
    assert len(said) == 80 and said.probability.notna().all() and set(said.smoker) == {"yes", "no", "former"}
    own = pd.read_csv(out/"cells"/bundle.parent.name/"predictions.csv").query("side == 'test'").set_index("image")
    both = own.join(said.set_index("image"), rsuffix="_again")
    assert both.probability.sub(both.probability_again).abs().max() < 1e-4
    capsys.readouterr()
    assert main(["rerun", str(study)]) == 0 and "0 new cells" in capsys.readouterr().out

@pytest.mark.parametrize("words, why", [
    ("explain b", "or --data: give one of both"), ("explain b rows.csv --data x", "give one of both"),
    ("predict b films --label dx", "--label says how --data is read"), ("predict b", "give one of both")])
def test_files_or_data_are_given_and_not_both(words, why, capsys):
    assert main(words.split()) == 1 and why in capsys.readouterr().err
