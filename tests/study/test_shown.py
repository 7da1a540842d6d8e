from cxr_fastai.core.csvs import read_csv, write_csv
from cxr_fastai.settings import plan_of
from cxr_fastai.stats.compare import verdict
from cxr_fastai.stats.ledger import read_plan
from cxr_fastai.study.grid import Study
from cxr_fastai.study.run import save_study
from cxr_fastai.study.shown import study_html

def test_a_study_shows_how_far_it_is_then_verdict_and_table(rows, tmp_path):
    plan = plan_of(backbones="test_resnet", arms="meta,real-meta", seeds="0", size=32, epochs=1, bs=16, weights="none",
                   primary=("meta", "real-meta"))
    study = Study(rows, plan, tmp_path)
    assert "2 cells, 0 of them done: study.run() does the rest." in study._repr_html_()
    study.run()
    assert "A study of 2 finished cells: save_study(study) makes its tables." in study._repr_html_()
    folder = save_study(study)
    assert folder == study.folder
    html, table = study._repr_html_(), read_csv(folder/"table1.csv")
    said = verdict(read_csv(folder/"comparisons.csv"), plan=read_plan(folder/"plan.json"))
    assert said.splitlines()[0] in html.replace("&#x27;", "'") and "Table 1" in html and "missing" not in html
    assert html.count("<th>") == table.shape[1] and html.count("<td>") == table.size and "test_resnet" in html

    write_csv(table.assign(Model="<img src=x>"), folder/"table1.csv")
    html = study_html(folder, [True, False])
    assert "<img" not in html and "&lt;img src=x&gt;" in html and "1 of 2 cells are missing." in html
