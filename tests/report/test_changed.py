import re
from html import unescape
from types import SimpleNamespace
import numpy as np, pandas as pd, pytest
from cxr_fastai.report.changed import changed_section, films_words, plot_changed, plot_mean_change
from cxr_fastai.report.html import Page

BEFORE, AFTER = (f"called Pneumonia {o} translation, by thumbnail" for o in ("before", "after"))

def kept(folder, n=5):
    "What was changed in n films of 8 x 8 pixels."
    folder.mkdir(parents=True)
    films = np.full((min(n, 3), 2, 8, 8), 100, np.uint8)
    films[:, 1] += 60
    every = np.linspace(.5, 1, n)
    every[-1:] = np.nan
    np.savez(folder/"changed.npz", names=[f"{i}.png" for i in range(len(films))], films=films, every=every,
             correlation=every[:len(films)], mean=np.full((8, 8), -20.))

def lines(of, **values):
    return pd.DataFrame([dict(of=of, figure=k, value=v, low=v, high=v, floor=.7, n=5, features="who", judged_on="valid",
                              meaning=f"what {k} is") for k, v in values.items()])

@pytest.fixture
def study(tmp_path):
    "Ours by two numbers of films and their fine part, another generator's without sources."
    for o in "gan/a2b-8-x", "gan/a2b-5-x", "gan/a2b-8-x-local": kept(tmp_path/o)
    kept(tmp_path/"study"/"films"/"b", 0)
    figures = {BEFORE: .2, AFTER: .58, "kernel distance": .1}
    tables = [lines(f"gan/{o}", **figures) for o in ("a2b-8-x", "a2b-5-x", "a2b-8-x-local")]
    pd.concat([*tables, lines("@b", **figures | {BEFORE: np.nan})]).to_csv(tmp_path/"study"/"quality.csv", index=False)
    return SimpleNamespace(folder=tmp_path/"study", out=tmp_path)

def test_each_difference_is_on_one_scale_with_its_bar(study):
    file = study.out/"gan/a2b-8-x"/"changed.npz"
    for draw, n in (plot_changed, 3), (plot_mean_change, 1):
        axes = draw(file).axes
        shown = [o for ax in axes for o in ax.images if o.cmap.name == "RdBu_r"]
        assert len(shown) == n and {o.get_clim() for o in shown} == {(-64, 64)}
        assert any("gray levels of 255" in ax.get_ylabel() for ax in axes)
    assert [ax.images[0].get_clim() for ax in plot_changed(file).axes[:2]] == [(0, 255)]*2 # and films on the format's

def test_of_unknown_sources_nothing_is_drawn(study):
    file = study.folder/"films"/"b"/"changed.npz"
    assert plot_changed(file) is None and plot_mean_change(file) is None

def test_the_section_says_draws_and_explains(study):
    page = Page(study.folder/"figures", [])
    changed_section(study, page)
    html = unescape(page.html("x"))
    assert "What the translation changed" in html and "what kernel distance is" in html
    assert "gan/a2b-8-x: called Pneumonia by who: 20% of the sources, 58% of the films [58%, 58%]" in html
    assert "@b: called Pneumonia by who: the sources aren't known, 58%" in html
    drawn = {re.sub(r"\W+$", "", o.stem) for o in (study.folder/"figures").glob("*.png")}
    assert drawn == {f"changed{o}-gan-a2b-8-x{part}" for o in ("", "-mean") for part in ("", "-local")}

def test_without_judged_films_there_is_no_section(tmp_path):
    page = Page(tmp_path, [])
    changed_section(SimpleNamespace(folder=tmp_path, out=tmp_path), page)
    assert page.sections == [] and films_words(tmp_path) == []
