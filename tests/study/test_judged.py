import shutil
import numpy as np, pytest
from PIL import Image
from cxr_fastai.cohort.parts import fine_change
from cxr_fastai.cohort.radiograph import read_radiograph
from cxr_fastai.core.csvs import read_csv
from cxr_fastai.settings import plan_of
from cxr_fastai.study.cell import arm_rows
from cxr_fastai.study.grid import Study
from cxr_fastai.study.judged import save_films
from planted import Darkens, planted_rows

pytestmark = pytest.mark.usefixtures("small_gan")

ARMS = "real,real-synth+local,real-synth@k+local,real-synth@u"
TINY = dict(backbones="test_resnet", size=32, epochs=1, bs=8, weights="none", gan_epochs=1, synthetic=10)

@pytest.fixture(scope="module")
def places(tmp_path_factory):
    "Rows; films by k, of known sources, and by u, of unknown ones."
    root = tmp_path_factory.mktemp("study")
    for o in "ikulw": (root/o).mkdir()
    rows = planted_rows(root/"i", "tone", 100)
    own = rows[(rows.split == "train") & (rows.label == "Normal")]
    for film in own.itertuples():
        pixels = Darkens().translate(np.asarray(Image.open(film.file))[None], "a2b")[0]
        Image.fromarray(pixels).save(root/"k"/f"made-{film.image}")
        Image.fromarray(255 - pixels.T).save(root/"u"/film.image)
    (root/"k"/"films.csv").write_text("file,label,source\n" + "".join(f"made-{o},1,{o}\n" for o in own.image))
    return root, rows

def grid(places, arms=ARMS, names="ku"):
    root, rows = places
    return Study(rows, plan_of(arms=arms, synthetic_from=[f"{o}={root/o}" for o in names], **TINY), root/"runs")

@pytest.fixture(scope="module")
def done(places): return grid(places).run()

@pytest.fixture(scope="module")
def found(done, places):
    save_films(done, places[0]/"w")
    return read_csv(places[0]/"w"/"quality.csv")

def cell(study, arm): return next(c for c in study.cells.values() if c.name == arm)

def test_a_part_of_others_films_is_made_of_their_sources_once(done, places):
    assert done.errors == {}
    root, rows = places
    made = arm_rows(cell(done, "real-synth@k+local")).query("synthetic").iloc[0]
    source = read_radiograph(rows.set_index("image").file[made.source_image], 32)
    film = read_radiograph(root/"k"/f"made-{made.source_image}", 32)
    assert np.array_equal(np.asarray(Image.open(made.file)), fine_change(source[None], film[None])[0])
    folder, = (root/"runs").glob("films-k-local-*")
    lines = read_csv(folder/"films.csv")
    assert set(lines.source) == {o.name.removeprefix("made-") for o in (root/"k").glob("*.png")}
    before = {o: o.stat().st_mtime_ns for o in folder.iterdir()}
    grid(places).generators.prepare([rows])
    assert {o: o.stat().st_mtime_ns for o in folder.iterdir()} == before

def test_a_part_is_another_cell_and_the_same_one_again(done, places):
    names = {o: cell(grid(places, f"{ARMS},real-synth,real-synth@k"), o).folder.name
             for o in ("real-synth", "real-synth+local", "real-synth@k", "real-synth@k+local")}
    assert len({*names.values()}) == 4
    for o in "real-synth+local", "real-synth@k+local": assert names[o] == cell(done, o).folder.name

def test_a_part_of_films_of_unknown_sources_is_refused_before_anything(places):
    with pytest.raises(ValueError, match=r"Arms '\+local' need the source of each film, and of 30 of 30 films of u it"):
        grid(places, "real,real-synth@u+local", "u")

def test_every_generator_is_judged_by_thumbnail_and_by_the_real_arm(done, found):
    assert found.of.nunique() == 3 and found.of.str.startswith("@").sum() == 2*17 and len(found) == 3*17
    assert found.of[0].startswith("cyclegan-") and found.of[0].endswith("-local")
    by = found[found.figure == "called Pneumonia before translation, by classifier"].set_index("of")
    assert (by.n[["@k+local", "@u"]] == [30, 0]).all() and by.features["@u"].endswith("sources aren't known")
    assert by.value.notna().tolist() == [True, True, False] and (by.floor_high > by.floor_low).all()
    after = found[found.figure == "called Pneumonia after translation, by thumbnail"].set_index("of")
    assert after.value["@k+local"] < .2 # tone, which the fine part has not

def test_films_that_have_gone_are_said_and_made_again_where_that_can_be(done, found, places, tmp_path, capsys):
    shutil.rmtree(next((places[0]/"runs").glob("films-k-local-*")))
    gone = done.out/found.of[0]/arm_rows(cell(done, "real-synth+local")).query("synthetic").image.iloc[0]
    gone.rename(tmp_path/"kept.png")
    save_films(done, tmp_path)
    (tmp_path/"kept.png").rename(gone)
    again = read_csv(tmp_path/"quality.csv")
    assert len(again) == len(found) - 2 and f"isn't asked about the films of {found.of[0]}" in capsys.readouterr().out

def test_the_classifier_is_asked_about_sources_films_and_real_ones(done, found):
    c = cell(done, "real")
    learn, films = c.learner(), arm_rows(cell(done, "real-synth+local")).query("synthetic")
    ask = lambda rows: learn.get_preds(dl=learn.dls.test_dl(rows[["image", "file"]]))[0][:, 1].numpy()
    valid = c.rows[c.rows.split == "valid"]
    level = np.sort(ask(valid))[-10] # as many are positive
    line = found[found.figure == "called Pneumonia after translation, by classifier"].iloc[0]
    assert (valid.label == "Pneumonia").sum() == 10 and line.n == 10 and line.low < line.high
    assert line.value == pytest.approx((ask(films) >= level).mean()) and line.floor > 0
