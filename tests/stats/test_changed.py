from functools import cache
import numpy as np, pandas as pd, pytest
from cxr_fastai.cohort.parts import each_pair
from cxr_fastai.cohort.synthetic import read_manifest
from cxr_fastai.gan.synthesis import part_of, synthesise
from cxr_fastai.stats import changed
from cxr_fastai.stats.changed import (_correlated, Called, change_sentences, change_table, film_changes,
                                      lines_of_change, shown_films)
from planted import Darkens, planted_rows, SIDE, Spots

@pytest.fixture(scope="module")
def said(tmp_path_factory):
    "`said(kind, gan, part)`: the table of a generator on films whose class is `kind`, and what it was made of."
    known, root = {}, tmp_path_factory.mktemp("planted")
    def said(kind, gan, part=None):
        place = root/f"{kind}-{gan.__name__}"
        if not place.exists():
            (place/"films").mkdir(parents=True)
            rows = known[place] = planted_rows(place/"films", kind)
            part_of(rows, synthesise(gan(), rows, 40, out=place/"whole"), "local", place/"local")
        rows, synth = known[place], read_manifest(place/(part or "whole"))
        found = film_changes(rows, synth, SIDE)
        return change_table(rows, synth, found, SIDE).set_index("figure"), rows, synth, found
    return cache(said)

BEFORE, AFTER = (f"called Pneumonia {o} translation, by thumbnail" for o in ("before", "after"))
LIKE, SMOOTH = "correlation with the source", "share of the change that is tone"

def test_a_generator_that_only_darkens_is_tone_and_its_fine_part_is_nothing(said):
    table, _, _, found = said("tone", Darkens)
    assert table.value[BEFORE] < .1 and table.value[AFTER] > .9 and table.floor[AFTER] > .8 > .2 > table.floor[BEFORE]
    assert table.value[SMOOTH] > .9 and found.mean.mean() < -10
    local, _, _, rest = said("tone", Darkens, "local")
    assert local.value[AFTER] < .1 and local.value[LIKE] > .99 and abs(rest.mean).max() < 4

def test_a_generator_that_draws_spots_is_texture_and_survives(said):
    table, _, synth, found = said("tone", Spots)
    assert table.value[SMOOTH] < .3 and table.value[AFTER] < .1 # no thumbnail calls it exposure
    _, rows, local, _ = said("tone", Spots, "local")
    peaks = lambda o: np.concatenate([(film - source.astype(float)).max((1, 2)) for _, source, film in
                                      each_pair(rows, o, SIDE)])
    assert (peaks(synth) > 50).all() and (peaks(local) > .6*peaks(synth)).all()

def test_the_probe_that_judges_a_film_was_not_fitted_on_its_patient(said, monkeypatch):
    "Where thumbnails show nothing of the class, sources are called positive by chance; who knew them knows better."
    table, rows, synth, found = said("texture", Darkens)
    assert .3 < table.value[BEFORE] < .7
    monkeypatch.setattr(changed, "_folds", lambda hit, who, seed: np.zeros(len(hit), int))
    assert change_table(rows, synth, found, SIDE).set_index("figure").value[BEFORE] < .2

def test_correlations_are_numpys_and_nothing_is_said_of_one_gray():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 255, (2, 4, 9, 9), dtype=np.uint8)
    y[3] = 7
    found = _correlated(x, y)
    assert found[:3] == pytest.approx([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(x[:3], y[:3])])
    assert np.isnan(found[3])

def test_a_film_that_was_not_changed_has_no_share_of_tone(said):
    _, rows, synth, _ = said("tone", Darkens)
    found = film_changes(rows, synth.assign(file=synth.source_file), SIDE)
    table = change_table(rows, synth, found, SIDE).set_index("figure")
    assert found.correlation == pytest.approx(1) and np.isnan(table.value[SMOOTH]) and (found.mean == 0).all()
    assert table.value[BEFORE] == table.value[AFTER]

def test_of_unknown_sources_before_is_blank_and_said(said):
    _, rows, synth, _ = said("tone", Darkens)
    synth = synth.assign(source_image=np.nan, patient_id=[f"@x {i}" for i in range(len(synth))])
    found = film_changes(rows, synth, SIDE)
    table = change_table(rows, synth, found, SIDE).set_index("figure")
    assert table.loc[[BEFORE, LIKE, SMOOTH], ["value", "low", "high"]].isna().all().all() and table.n[BEFORE] == 0
    assert table.features[[BEFORE, LIKE, SMOOTH]].str.contains("sources aren't known").all()
    assert table.value[AFTER] > .9 and table.n[AFTER] == 40
    assert "the sources aren't known, 100% of the films" in change_sentences(table.reset_index())[0]
    assert all(len(o) == 0 for o in shown_films(rows, synth, found, SIDE)) and np.isnan(found.mean).all()

def test_shown_are_the_least_like_their_source_the_middle_and_the_most(said):
    _, rows, synth, found = said("tone", Spots)
    names, films, correlation = shown_films(rows, synth, found, SIDE)
    assert correlation.tolist() == [min(found.correlation), np.sort(found.correlation)[20], max(found.correlation)]
    assert films.shape == (3, 2, SIDE, SIDE)
    for name, r, (source, film) in zip(names, correlation, films):
        assert np.corrcoef(source.ravel(), film.ravel())[0, 1] == pytest.approx(r) and name in {*synth.image}
    one = synth[:1]
    assert len(shown_films(rows, one, film_changes(rows, one, SIDE), SIDE)[0]) == 1

def test_an_interval_is_of_patients_not_of_films():
    few, many = Called(np.array([1, 0]*20, bool), np.arange(40)//10), Called(np.array([1, 0]*20, bool), np.arange(40))
    assert few.share()[0] == many.share()[0] == .5
    width = lambda o: o.share()[2] - o.share()[1]
    assert width(few) > 2*width(many) and np.isnan(Called(np.empty(0, bool), np.empty(0)).share()).all()
    none = Called(np.zeros(9, bool), np.arange(9)).share()
    assert none[:2] == (0, 0) and 0 < none[2] < .4 # of none, too, something is known

def test_films_of_the_majority_are_held_against_the_other_floors(said, tmp_path):
    _, rows, _, _ = said("tone", Darkens)
    synth = synthesise(Darkens(), rows, 20, direction="b2a", out=tmp_path/"b2a")
    table = change_table(rows, synth, film_changes(rows, synth, SIDE), SIDE).set_index("figure")
    assert table.floor[BEFORE] > .8 > .2 > table.floor[AFTER]

def test_every_line_has_its_meaning_and_is_known_for_one_of_change(said):
    table = said("tone", Darkens)[0].reset_index()
    assert table.meaning.str.len().gt(40).all() and lines_of_change(table).all()
    assert not lines_of_change(pd.DataFrame(dict(figure=["kernel distance", "called off"]))).any()
    assert change_sentences(table) == ["called Pneumonia by 16 x 16 thumbnail: 0% of the sources, 100% of "
                                       "the films [94%, 100%], and 100% of real films of their class."]
