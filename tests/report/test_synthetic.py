from types import SimpleNamespace
import pandas as pd
from cxr_fastai.report.html import Page
from cxr_fastai.report.synthetic import synthetic_sections
from .test_page import write_gan

def shown(folder, rows, **settings):
    cells = pd.DataFrame(dict(gan=["gan-1/a2b", "gan-1/a2b", None]))
    settings = dict(protocol="clean", gan="fast") | settings
    page = Page(folder/"figures")
    synthetic_sections(SimpleNamespace(out=folder, cells=cells, settings=settings), page)
    return page.sections[0]["parts"]

def test_each_film_stands_behind_the_one_it_was_made_of(rows, tmp_path):
    write_gan(tmp_path/"gan-1"/"a2b", rows)
    parts = shown(tmp_path, rows)
    assert [o["shape"] for o in parts] == ["text", "films", "text", "films", "figures", "table"]
    made, near = parts[1]["films"], parts[3]["films"]
    assert len(made) == len(near) == 8 and [o["title"] for o in made[:2]] == ["Real", "Synthetic Pneumonia"]
    assert made[1]["caption"].endswith(f"made of {made[0]['caption']}") and "5.90 by features" in near[0]["caption"]
    assert parts[5]["heads"][0] == "figure" and len(parts[5]["heads"]) == 5
    assert shown(tmp_path, rows)[1]["films"] == made

def test_films_that_have_gone_are_said(rows, tmp_path):
    write_gan(tmp_path/"gan-1"/"a2b", rows)
    for o in (tmp_path/"gan-1"/"a2b").glob("*.png"): o.unlink()
    (tmp_path/"gan-1"/"a2b"/"quality.csv").unlink()
    said = [o["text"] for o in shown(tmp_path, rows, protocol="paper") if o["shape"] == "text"]
    assert "The films of gan-1 can't be shown" in said[0] and "CycleGAN saw every row" in said[1]
