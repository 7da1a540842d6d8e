import base64, io, json, os, re, shutil, subprocess
from html.parser import HTMLParser
import matplotlib.pyplot as plt
import numpy as np, pandas as pd, pytest
from PIL import Image
from cxr_fastai.arms import comparisons_of
from cxr_fastai.cohort.rows import positive, save_rows
from cxr_fastai.cohort.sampling import split_paper
from cxr_fastai.stats.compare import compare_arms
from cxr_fastai.stats.labels import label_noise, noise_table
from cxr_fastai.stats.shortcuts import shortcut_tables
from cxr_fastai.core.files import write_json
from cxr_fastai.stats.formats import save_table
from cxr_fastai.report.films import plot_gan
from cxr_fastai.report.page import _families, report
from cxr_fastai.stats.subgroups import interactions, subgroups
from cxr_fastai.stats.tables import metrics_table, score_table, table1

DRAWN, LEAKY = "say nothing about pneumonia", "leaky on purpose"

def write_gan(folder, rows, n=8):
    "A folder as `synthesise` and its judges leave it: films of the majority stand for their translation."
    source = rows[(rows["split"] == "train") & ~positive(rows)].head(n)
    folder.mkdir(parents=True)
    lines = source[["image", "file", "patient_id"]].add_prefix("source_").assign(
        image=[f"a2b_{i}.png" for i in range(len(source))], patient_id=source["patient_id"], split="train", seed=0,
        label=pd.Categorical(["Pneumonia"]*len(source), ["Normal", "Pneumonia"], ordered=True), size=32,
        direction="a2b", metadata_policy="matched", donor_image=None, generator="g", sex="F", view="AP",
        age=50., zoom=1.)
    for o in lines.itertuples(): shutil.copy(o.source_file, folder/o.image)
    save_rows(lines, folder/"manifest.csv")
    write_json(folder/"generator.json", dict(cat_names=["sex", "view"], cont_names=["age"]))
    judged = dict(figure=["Fréchet distance", "told apart (AUC)"], value=[151.2, .94], low=[130., .9], high=[170., .97]
                  ) | dict(floor=[120., .5], floor_low=[100., np.nan], floor_high=[140., np.nan], n=n, features="none")
    pd.DataFrame(judged).to_csv(folder/"quality.csv", index=False)
    near = pd.DataFrame(dict(file=[str(folder/o) for o in lines["image"]]))
    near = near.assign(nearest_file_features=lines["source_file"].array, features="none", distance_features=5.9,
                       distance_pixels=.1, real_features=5.2, real_pixels=.3)
    near.to_csv(folder/"memorised.csv", index=False)
    losses = dict(train_loss=[2., 1.5], d_a=[.4, .3], acc_d_a=[.5, .6])
    pd.DataFrame(losses).to_csv(folder.parent/"history.csv", index=False)
    save_rows(rows, folder.parent/"rows.csv")

def write_cell(folder, rng):
    falls = np.linspace(.7, .4, 3) + rng.normal(0, .02, (2, 3))
    folder.mkdir(parents=True)
    pd.DataFrame(dict(train_loss=falls[0], valid_loss=falls[1], recall=[.5, .6, .65], rocauc=[.5, .6, .7])
                 ).to_csv(folder/"history.csv", index=False)

def make_study(out, rows, backbones=("resnet50",), arms=("real", "real-meta"), seeds=(0, 1), failed=(), **settings):
    "A study's folder by hand: its probabilities are drawn, its tables made of them; `failed` cells have an error."
    rng, folder, made = np.random.default_rng(0), out/"study-1a2b3c4d", out/"cyclegan-0a1b2c3d"/"a2b-8-matched"
    settings = dict(protocol="clean", data="nih", drawn=False) | settings
    folder.mkdir(parents=True)
    write_gan(made, rows)
    write_json(folder/"settings.json", dict(
        backbones=backbones, arms=arms, seeds=seeds, epoch_rule="last", positive="Pneumonia", negative="Normal",
        size=64, epochs=3, bs=16, lr=1e-3, weights="none", fusion="concat", gan="fast", split_seed=0,
        cat_names=["sex", "view"], cont_names=["age"], versions=dict(cxr_fastai="0.1", torch="2.15")) | settings)
    save_rows(rows, folder/"rows.csv")
    sides = {"with an image": rows} | {o: rows[rows["split"] == o] for o in ("train", "valid", "test")}
    count = lambda o: dict(rows=len(o), patients=o["patient_id"].nunique(), positives=positive(o).sum())
    flow = [dict(step=k) | count(o) for k, o in sides.items()]
    pd.DataFrame(flow).to_csv(folder/"flow.csv", index=False)
    asked, cells, parts = rows[rows["split"] != "train"], [], []
    about = pd.DataFrame(dict(side=asked["split"], image=asked["image"], patient_id=asked["patient_id"],
                              label=positive(asked).astype(int), synthetic=False))
    hard = rng.normal(size=len(asked))
    for b, (k, arm), s in ((b, a, s) for b in backbones for a in enumerate(arms) for s in seeds):
        synth = "synth" in arm
        cell = dict(backbone=b, arm=arm, seed=s, folder=f"cells/{len(cells)}", gan=None)
        if synth: cell["gan"] = made.relative_to(out)
        cells.append(cell)
        if (b, arm, s) in failed:
            cell["error"] = f"cell {len(cells)}: RuntimeError: <b>no</b> memory"
            continue
        cell |= dict(train_prior=.5 if synth else .3, prior=.3, weights="none", seconds=12.5, error=None)
        write_cell(out/cell["folder"], rng)
        logit = (1 + .2*(k % 5))*positive(asked) + hard + .5*rng.normal(size=len(asked)) - 1 + synth
        parts.append(about.assign(backbone=b, arm=arm, seed=s, probability=1/(1 + np.exp(-logit))))
    predictions, cells = pd.concat(parts, ignore_index=True), pd.DataFrame(cells)
    predictions.to_csv(folder/"predictions.csv", index=False)
    cells.to_csv(folder/"cells.csv", index=False)
    compared = compare_arms(predictions, comparisons_of(arms), n=50)
    scored = score_table(predictions, cells, protocol=settings["protocol"], n=50)
    tables = dict(table1=table1(scored, compared), metrics=metrics_table(scored), comparisons=compared,
                  subgroups=subgroups(predictions, rows), interactions=interactions(predictions, rows))
    for name, table in tables.items(): save_table(table, folder/name)
    return folder

def write_shortcuts(folder, rows):
    "What later versions write, too."
    said, cells = (pd.read_csv(folder/f"{o}.csv") for o in ("predictions", "cells"))
    kept, shown = shortcut_tables(rows, said, 48)
    for name, table in kept.items(): table.to_csv(folder/f"{name}.csv", index=False)
    noise = noise_table(label_noise(score_table(said, cells, n=50)))
    for name, table in (shown | dict(noise_table=noise, relabel=said.head(3))).items(): save_table(table, folder/name)

class Reader(HTMLParser):
    "Tags, attributes, sections and text of a page, and whether its tags close as they opened."
    VOID = {"meta", "link", "img"}
    def __init__(self, html):
        super().__init__()
        self.tags, self.open, self.text, self.section, self.texts = [], [], "", "", {}
        self.feed(html)
        assert not self.open
    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "section": self.section = dict(attrs)["id"]
        if tag not in self.VOID: self.open.append(tag)
    def handle_endtag(self, tag): assert self.open.pop() == tag
    def handle_data(self, data):
        if "style" not in self.open: self.texts[self.section] = self.texts.get(self.section, "") + " " + data
    def all(self, tag): return [attrs for name, attrs in self.tags if name == tag]

class Browser:
    "Chromium, asked over its debugging pipe: descriptors 3 and 4, messages that end in a zero."
    def __init__(self, profile):
        (theirs, self.write), (self.read, ours) = os.pipe(), os.pipe()
        flags = "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --remote-debugging-pipe"
        flags += f" --hide-scrollbars --user-data-dir='{profile}' about:blank"
        command = f"exec chromium {flags} 3<&{theirs} 4>&{ours} 2>{profile}.txt"
        self.process = subprocess.Popen(["bash", "-c", command], pass_fds=(theirs, ours))
        for o in theirs, ours: os.close(o)
        self.n, self.rest, self.events, self.session = 0, b"", [], {}
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = dict(sessionId=self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"])
        for o in "Page", "Runtime", "Log", "Network": self.call(f"{o}.enable")

    def next(self):
        while b"\0" not in self.rest:
            got = os.read(self.read, 1 << 20)
            assert got, "chromium has gone"
            self.rest += got
        message, self.rest = self.rest.split(b"\0", 1)
        return json.loads(message)

    def call(self, method, **params):
        self.n += 1
        os.write(self.write, json.dumps(dict(id=self.n, method=method, params=params) | self.session).encode() + b"\0")
        while (answer := self.next()).get("id") != self.n: self.events.append(answer)
        return answer["result"]

    def open(self, file, width):
        self.events = []
        screen = dict(width=width, height=800, deviceScaleFactor=1, mobile=width < 500)
        self.call("Emulation.setDeviceMetricsOverride", **screen)
        self.call("Page.navigate", url=f"file://{file}")
        while not self.happened("Page.loadEventFired"): self.events.append(self.next())

    def happened(self, *names): return [o["params"] for o in self.events if o.get("method") in names]
    def ask(self, code): return self.call("Runtime.evaluate", expression=code, returnByValue=True)["result"]["value"]
    def close(self):
        self.call("Browser.close")
        self.process.wait(20)

@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if not shutil.which("chromium"): pytest.skip("needs chromium")
    browser = Browser(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()

@pytest.fixture(scope="module")
def study(rows, tmp_path_factory):
    "Hostile names, a failed cell, a dose, drawn films."
    rows = rows.assign(view=rows["view"].map({"AP": "<img src=x>", "PA": "P&A"}), site="<A>")
    folder = make_study(tmp_path_factory.mktemp("runs"), rows, ("resnet50", "<b>net</b>$"),
                        ["real", "meta", "real-meta", "real-synth-meta", "real-synth-meta+1/8"], data="", drawn=True,
                        failed={("resnet50", "real", 1)}, groups=["site"])
    write_shortcuts(folder, rows)
    return folder

@pytest.fixture(scope="module")
def page(study): return report(study)

@pytest.fixture(scope="module")
def html(page): return Reader(page.read_text(encoding="utf-8"))

@pytest.fixture(scope="module")
def leaky(rows, tmp_path_factory):
    "By the paper's protocol, without a comparison and without synthetic rows."
    return make_study(tmp_path_factory.mktemp("paper"), split_paper(rows), arms=["real"], seeds=[0], protocol="paper")

def test_the_page_is_one_file_that_asks_for_nothing(page, html):
    assert page.name == "report.html" and not html.all("script")
    assert all(o["src"].startswith("data:image/png;base64,") for o in html.all("img"))
    assert [o["href"] for o in html.all("link")] == ["data:,"] and all(o["href"][0] == "#" for o in html.all("a"))
    style = re.search("<style>(.*?)</style>", page.read_text(), re.S)[1]
    assert "url(" not in style and "@import" not in style and "max-width: 100%" in style

def test_html_is_sound_for_readers_of_every_kind(html):
    assert html.all("html")[0]["lang"] == "en" and "width=device-width" in str(html.all("meta"))
    ids = [o["id"] for _, o in html.tags if "id" in o]
    assert len(ids) == len(set(ids)) and {o["href"][1:] for o in html.all("a")} <= set(ids)
    assert all(len(o["alt"]) > 15 for o in html.all("img")) and len(html.all("figcaption")) == len(html.all("figure"))
    assert all(o["aria-labelledby"] in ids and o["tabindex"] == "0" for o in html.all("div") if o["class"] == "scroll")
    assert all(o["scope"] in ("row", "col", "rowgroup") for o in html.all("th"))

def test_every_section_says_what_it_should(study, html):
    assert list(html.texts)[1:] == (
        "what-was-run cohort table-1 comparisons all-metrics dose-and-response roc-curves precision-and-recall "
        "calibration confusion-matrices epochs synthetic-films subgroups wrong-labels failed-cells "
        "settings-and-versions checklist").split()
    text, rows = html.texts, pd.read_csv(study/"rows.csv")
    assert "19 of 20 cells are finished" in text["what-was-run"] and "that are needed. AUC" in text["what-was-run"]
    assert "images" in text["cohort"] and str(len(rows)) in text["cohort"]
    assert pd.read_csv(study/"table1.csv")["Ensemble"][0] in text["table-1"]
    first = pd.read_csv(study/"comparisons.csv").iloc[0]
    assert f"{first.rocauc:.3f} [{first.rocauc_low:.3f}, {first.rocauc_high:.3f}]" in text["comparisons"]
    assert "Real-Meta to Ensemble" in text["comparisons"] and "rocauc low" not in text["comparisons"]
    assert pd.read_csv(study/"metrics.csv")["recall"][0] in text["all-metrics"]
    assert "Ensemble + dose 1/8" in text["all-metrics"] and "cyclegan-0a1b2c3d/a2b-8-matched" in text["synthetic-films"]
    assert "151.200 [130.000, 170.000]" in text["synthetic-films"]
    assert "RuntimeError: <b>no</b> memory" in text["failed-cells"] and "2.15" in text["settings-and-versions"]
    assert "TRIPOD+AI" in text["checklist"] and "the author's to fill" in text["checklist"]

def test_the_first_section_says_which_arm_does_not_beat_which_shortcut(study, page, html):
    text, table = html.texts, pd.read_csv(study/"against_shortcuts.csv")
    lost = table[table.beats == "no"].sort_values("auc_shortcut", ascending=False).iloc[0]
    assert f"AUC {lost.auc_arm:.3f}) does not beat" in text["what-was-run"] and "DeLong" in text["what-was-run"]
    assert re.search('<p class="warn">resnet50: Real .*does not beat', page.read_text())
    assert "16 x 16 thumbnail" in text["table-1"] and pd.read_csv(study/"shortcut_table.csv").AUC[0] in text["table-1"]
    assert "seen at 10%" in text["wrong-labels"] and "3 valid and test films" in text["wrong-labels"]
    assert "site: all test rows are of one group, <A>." in text["subgroups"] and "site <A>" in text["cohort"]

def test_arms_stand_beside_one_another_in_each_group(html):
    groups = re.findall(r" (Real|Meta|Real-Meta|Ensemble)  ?(sex|age) (\S+)", html.texts["subgroups"])
    arms = ["Real", "Meta", "Real-Meta", "Ensemble"]
    assert [arm for arm, *group in groups if group == ["sex", "F"]] == arms*2
    assert groups[-4:] == [(o, "sex", "M") for o in arms]

def test_names_from_the_data_are_escaped(page, html):
    assert "<b>net</b>$" in html.texts["all-metrics"] and "<img src=x>" in html.texts["subgroups"]
    text = page.read_text(encoding="utf-8")
    assert "<b>" not in text and "<img src=x>" not in text and "P&A" not in text

def test_scores_of_drawn_films_carry_their_warning(html):
    with_scores = {"what-was-run", "table-1", "all-metrics", "dose-and-response", "roc-curves", "precision-and-recall",
                   "calibration", "confusion-matrices", "subgroups", "wrong-labels"}
    assert {k for k, o in html.texts.items() if DRAWN in o} == with_scores
    assert not any(LEAKY in o for o in html.texts.values())

def test_a_leaky_study_says_so_and_a_small_one_is_told(leaky):
    text = Reader(report(leaky).read_text(encoding="utf-8")).texts
    assert all(LEAKY in text[o] for o in ("what-was-run", "table-1", "all-metrics", "roc-curves"))
    twice = (pd.read_csv(leaky/"rows.csv").groupby("patient_id").split.nunique() > 1).sum()
    assert f"{twice} of 64 patients are on several sides" in text["table-1"] and twice
    assert "synthetic films are on every side" not in text["table-1"] # there are none
    assert not any(DRAWN in o for o in text.values()) and "dose-and-response" not in text
    said = "resnet50: Real-Meta and Ensemble aren't compared, as Real-Meta is no arm of this study and"
    assert said in text["what-was-run"]
    assert "none" in text["comparisons"] and "Failed cells: none" in text["failed-cells"]
    assert "No arm has synthetic films" in text["synthetic-films"] and "CycleGAN" not in text["what-was-run"]
    assert not any("mean over seeds" in o.lower() for o in text.values()) and "seed 0" in text["all-metrics"].lower()
    assert "sicker" not in text["subgroups"]
    assert "shortcut where" not in text["what-was-run"] and "wrong-labels" not in text # of a version before
    assert "Meta" not in text["subgroups"].split("too.")[1].split("figure")[0][:40]

def test_each_figure_is_saved_as_png_and_svg_and_stands_in_the_page(study, html):
    names = {o.stem for o in (study/"figures").glob("*.png")}
    assert names == {o.stem for o in (study/"figures").glob("*.svg")} and len(names) == len(html.all("img"))
    kinds = {o.split("-")[0] for o in names}
    assert kinds == {"roc", "pr", "calibration", "confusion", "epochs", "groups", "dose", "fig2", "memorised"}
    assert "roc-resnet50" in names and "epochs-resnet50-real-synth-meta+1-8" in names
    inside = {o["src"].split(",")[1] for o in html.all("img")}
    assert inside == {base64.b64encode(o.read_bytes()).decode() for o in (study/"figures").glob("*.png")}
    assert all(Image.open(io.BytesIO(base64.b64decode(o))).width > 500 for o in inside)

def test_no_figure_is_left_open_and_the_same_study_gives_the_same_bits(leaky):
    page = report(leaky)
    before = {o: o.read_bytes() for o in (page, *(leaky/"figures").iterdir())}
    report(leaky)
    assert plt.get_fignums() == [] and {o: o.read_bytes() for o in before} == before

@pytest.mark.parametrize("width", [390, 1200])
def test_a_browser_shows_every_figure_without_errors_or_sideways_scrolling(page, html, browser, width, tmp_path):
    browser.open(page, width)
    assert not browser.happened("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")
    asked = [o["request"]["url"] for o in browser.happened("Network.requestWillBeSent")]
    assert {o for o in asked if not o.startswith("data:")} == {f"file://{page}"}
    shown = browser.ask("[...document.images].map(o => [o.complete && o.checkVisibility(), o.naturalWidth, o.width])")
    assert len(shown) == len(html.all("img"))
    assert all(seen and natural > 500 and 250 < on_page <= width for seen, natural, on_page in shown)
    assert browser.ask("[innerWidth, document.documentElement.scrollWidth]") == [width, width]
    wide = browser.ask("[...document.querySelectorAll('.scroll')].filter(o => o.scrollWidth > o.clientWidth).length")
    assert wide >= (3 if width == 390 else 1) # tables that scroll in boxes of their own

def test_a_browser_shows_dark_pages_and_every_target(page, browser):
    browser.open(page, 390)
    ground = "getComputedStyle(document.body).backgroundColor"
    light = browser.ask(ground)
    browser.call("Emulation.setEmulatedMedia", features=[dict(name="prefers-color-scheme", value="dark")])
    assert browser.ask(ground) != light == "rgb(255, 255, 255)"
    browser.call("Emulation.setEmulatedMedia", features=[])
    links = "[...document.querySelectorAll('nav a')]"
    assert browser.ask(links + ".every(o => document.querySelector(o.hash).innerText.length > 20)")

def test_files_that_have_gone_are_said_and_the_rest_is_shown(rows, tmp_path):
    folder = make_study(tmp_path, rows, arms=["real-synth"], seeds=[0])
    shutil.rmtree(tmp_path/"cells")
    for o in (tmp_path/"cyclegan-0a1b2c3d"/"a2b-8-matched").glob("*.png"): o.unlink()
    (tmp_path/"cyclegan-0a1b2c3d"/"a2b-8-matched"/"quality.csv").unlink()
    text = Reader(report(folder).read_text(encoding="utf-8")).texts
    assert "can't be shown" in text["synthetic-films"] and "holds no quality.csv" in text["synthetic-films"]
    assert "cyclegan-0a1b2c3d" in text["synthetic-films"] and "ROC" in text["roc-curves"] and not plt.get_fignums()

def test_another_folder_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match="no settings.json, rows.csv, flow.csv and 7 more: report takes the"):
        report(tmp_path)

def test_figures_of_a_gan_are_written_beside_it(study):
    folder = study.parent/"cyclegan-0a1b2c3d"
    plot_gan(folder)
    assert all(o.stat().st_size > 5000 for o in (folder/"fig2.png", folder/"a2b-8-matched"/"memorised.png"))

def test_pretrained_arms_and_other_generators_have_their_figures():
    arms = ["real-meta", "real-synth-meta@a", "real-meta+pretrain@a", "real-meta+pretrain-duplicate", "real+pretrain"]
    assert _families(arms) == {"plain arms": arms[:2], "pretraining": ["real-meta", *arms[2:]]}
