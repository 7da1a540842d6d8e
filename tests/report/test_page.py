import base64, hashlib, re, shutil
from html.parser import HTMLParser
import matplotlib.pyplot as plt
import numpy as np, pandas as pd, pytest
from browser import beside, NAMELESS, PALE, SMALL
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
        if {"style", "script"} & {*self.open}: return
        self.texts[self.section] = " ".join([self.texts.get(self.section, ""), *data.split()])
    def all(self, tag): return [attrs for name, attrs in self.tags if name == tag]

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
    text = page.read_text(encoding="utf-8")
    assert page.name == "report.html" and len(html.all("script")) == 1 and html.all("script")[0] == {}
    assert all(o["src"].startswith("data:image/jpeg;base64,") for o in html.all("img"))
    assert [o["href"] for o in html.all("link")] == ["data:,"] and all(o["href"][0] == "#" for o in html.all("a"))
    style = re.search("<style>(.*?)</style>", text, re.S)[1]
    assert "url(" not in style and "@import" not in style
    script = re.search("<script>(.*)</script>", text, re.S)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html.all("meta")[2]["content"] # and no other script runs

def test_html_is_sound_for_readers_of_every_kind(html):
    assert html.all("html")[0]["lang"] == "en" and "width=device-width" in str(html.all("meta"))
    ids = [o["id"] for _, o in html.tags if "id" in o]
    assert len(ids) == len(set(ids)) and {o["href"][1:] for o in html.all("a")} <= set(ids)
    assert all(len(o["alt"]) > 15 for o in html.all("img"))
    named = [o for o in html.all("svg") if "aria-hidden" not in o]
    assert named and all(o["role"] == "img" and len(o["aria-label"]) > 15 for o in named)
    assert all(o["aria-labelledby"] in ids for o in html.all("table"))
    assert all(o["scope"] in ("row", "col", "rowgroup") for o in html.all("th"))
    assert [k for k, _ in html.tags if k in ("h1", "h2", "h3")][0] == "h1" and len(html.all("h1")) == 1

OPEN = "verdict roc-auc-by-arm table-1 four-films".split()

def test_a_report_opens_with_what_is_asked_first(study, page, html):
    assert list(html.texts)[1:5] == OPEN
    head, text = html.texts[""], html.texts
    assert "Pneumonia against Normal" in head and "study-1a2b3c4d" in head and "5 arms, 2 backbones, 2 seeds" in head
    assert "80 films of 64 patients; in test" in head
    assert "2 of the 3 seeds that are needed. AUC" in text["verdict"]
    assert "1 cell of 20 failed" in text["verdict"]
    folded = re.findall('<section id="([^"]+)">\n<details', page.read_text())
    assert folded == list(html.texts)[5:] and not re.search("<details[^>]* open", page.read_text())

def test_the_forest_has_every_area_and_difference(study, html):
    text = html.texts["roc-auc-by-arm"]
    for name in "metrics", "shortcut_table":
        areas = pd.read_csv(study/f"{name}.csv")["rocauc" if name == "metrics" else "AUC"]
        assert all(o.split(" sd")[0] in text for o in areas if o != "-")
    for o in pd.read_csv(study/"comparisons.csv").itertuples(): assert f"{o.rocauc:+.3f} [{o.rocauc_low:+.3f}" in text
    assert "resnet50, from Real-Meta" in text and "from the best shortcut" in text and "16 x 16 thumbnail" in text

def test_table_1_is_a_line_an_arm(study, html):
    text, table = html.texts["table-1"], pd.read_csv(study/"table1.csv").iloc[0]
    heads = "arm recall procedure gain ROC-AUC specificity"
    assert heads in text and f"Ensemble {table['Ensemble']} {table['Ensemble procedure']}" in text
    assert table["Gain Real-Meta to Ensemble"].lstrip("'") in text

def test_four_films_are_of_each_case_with_what_each_arm_said(study, html):
    text, said = html.texts["four-films"], pd.read_csv(study/"predictions.csv")
    own = said[(said.side == "test") & (said.backbone == "resnet50") & (said.arm == "real-synth-meta")]
    mean = own.groupby(["image", "label"])["probability"].mean().reset_index()
    cases = {"Pneumonia, found": (1, True), "Pneumonia, missed": (1, False), "Normal, called wrongly": (0, True),
             "Normal, cleared": (0, False)}
    for what, (label, hit) in cases.items():
        case = mean[(mean.label == label) & ((mean.probability > .5) == hit)]
        assert sum(o in text for o in case.image) == text.count(what) >= bool(len(case))
    assert text.count("Ensemble + dose 1/8") == len(html.all("img")) - 16 == 4 # 8 pairs are of the translator

def test_every_section_says_what_it_should(study, html):
    assert list(html.texts)[5:] == (
        "what-was-run cohort shortcuts comparisons all-metrics dose-and-response roc-curves precision-and-recall "
        "calibration confusion-matrices epochs synthetic-films subgroups wrong-labels failed-cells "
        "settings-and-versions checklist").split()
    text, rows = html.texts, pd.read_csv(study/"rows.csv")
    assert "19 of 20 cells are finished" in text["what-was-run"]
    assert "images" in text["cohort"] and str(len(rows)) in text["cohort"]
    first = pd.read_csv(study/"comparisons.csv").iloc[0]
    assert f"{first.rocauc:.3f} [{first.rocauc_low:.3f}, {first.rocauc_high:.3f}]" in text["comparisons"]
    assert "Real-Meta to Ensemble" in text["comparisons"] and "rocauc low" not in text["comparisons"]
    assert pd.read_csv(study/"metrics.csv")["recall"][0] in text["all-metrics"]
    assert "Ensemble + dose 1/8" in text["all-metrics"] and "cyclegan-0a1b2c3d/a2b-8-matched" in text["synthetic-films"]
    assert "151.200 [130.000, 170.000]" in text["synthetic-films"]
    assert "RuntimeError: <b>no</b> memory" in text["failed-cells"] and "2.15" in text["settings-and-versions"]
    assert "TRIPOD+AI" in text["checklist"] and "the author's to fill" in text["checklist"]

def test_an_arm_that_does_not_beat_a_shortcut_is_named(study, page, html):
    text, table = html.texts, pd.read_csv(study/"against_shortcuts.csv")
    lost = table[table.beats == "no"].sort_values("auc_shortcut", ascending=False).iloc[0]
    assert f"AUC {lost.auc_arm:.3f}) does not beat" in text["shortcuts"] and "DeLong" in text["shortcuts"]
    assert re.search('<p class="warn">resnet50: [1-5] of 5 arms do not beat a shortcut', page.read_text())
    probe = pd.read_csv(study/"shortcut_table.csv").AUC[0]
    assert "16 x 16 thumbnail" in text["shortcuts"] and probe in text["shortcuts"]
    assert "seen at 10%" in text["wrong-labels"] and "3 valid and test films" in text["wrong-labels"]
    assert "site: all test rows are of one group, <A>." in text["subgroups"] and "site <A>" in text["cohort"]

def test_arms_stand_beside_one_another_in_each_group(html):
    text = html.texts["subgroups"].split("All")[0] # what stands there before all columns
    groups = re.findall(r" (Real|Meta|Real-Meta|Ensemble) (sex|age) (\S+)", text)
    arms = ["Real", "Meta", "Real-Meta", "Ensemble"]
    assert [arm for arm, *group in groups if group == ["sex", "F"]] == arms*2
    assert groups[-4:] == [(o, "sex", "M") for o in arms]

def test_names_from_the_data_are_escaped(page, html):
    assert "<b>net</b>$" in html.texts["all-metrics"] and "<img src=x>" in html.texts["subgroups"]
    text = page.read_text(encoding="utf-8")
    assert "<b>" not in text and "<img src=x>" not in text and "P&A" not in text

def test_a_warning_stands_once_where_it_stays(page, html):
    assert [k for k, o in html.texts.items() if DRAWN in o] == [""] and html.texts[""].count(DRAWN) == 1
    assert not any(LEAKY in o for o in html.texts.values())
    assert re.search(f'<aside class="warnings" aria-label="Warnings">\n<p>[^<]*{DRAWN}', page.read_text())

def test_a_leaky_study_says_so_and_a_small_one_is_told(leaky):
    text = Reader(report(leaky).read_text(encoding="utf-8")).texts
    assert text[""].count(LEAKY) == 1
    twice = (pd.read_csv(leaky/"rows.csv").groupby("patient_id").split.nunique() > 1).sum()
    assert f"{twice} of 64 patients are on several sides" in text[""] and twice
    assert "synthetic films are on every side" not in text[""] # there are none
    assert not any(DRAWN in o for o in text.values()) and "dose-and-response" not in text
    said = "resnet50: Real-Meta and Ensemble aren't compared, as Real-Meta is no arm of this study and"
    assert said in text["verdict"]
    assert "none" in text["comparisons"] and "Failed cells: none" in text["failed-cells"]
    assert "No arm has synthetic films" in text["synthetic-films"] and "CycleGAN" not in text["what-was-run"]
    assert not any("mean over seeds" in o.lower() for o in text.values()) and "seed 0" in text["all-metrics"].lower()
    assert "sicker" not in text["subgroups"]
    assert "shortcut" not in text["verdict"] and not {"shortcuts", "wrong-labels"} & {*text} # of a version before
    assert "Meta" not in text["subgroups"].split("too.")[1].split("figure")[0][:40]

def test_each_figure_is_saved_as_png_and_svg_and_stands_in_the_page(study, html):
    names = {o.stem for o in (study/"figures").glob("*.png")}
    shown = [o for o in html.all("svg") if "aria-hidden" not in o]
    assert names == {o.stem for o in (study/"figures").glob("*.svg")} and len(names) == len(shown)
    kinds = {o.split("-")[0] for o in names}
    assert kinds == {"roc", "pr", "calibration", "confusion", "epochs", "groups", "dose"}
    assert "roc-resnet50" in names and "epochs-resnet50-real-synth-meta+1-8" in names

def test_no_figure_is_left_open_and_the_same_study_gives_the_same_bits(leaky):
    page = report(leaky)
    before = {o: o.read_bytes() for o in (page, *(leaky/"figures").iterdir())}
    report(leaky)
    assert plt.get_fignums() == [] and {o: o.read_bytes() for o in before} == before

SHUT = "document.querySelectorAll('details:not([open])').length"

@pytest.mark.parametrize("width", [390, 1100])
def test_a_browser_shows_all_of_it_within_its_width(page, browser, width):
    tab = browser.open(f"file://{page}", width)
    assert tab.evaluate(beside()) == [] and tab.evaluate(SHUT) > 15
    tab.click(".all")
    assert tab.evaluate(SHUT) == 0
    assert tab.evaluate(beside()) == [] and tab.evaluate(NAMELESS) == [] and tab.evaluate(SMALL) == []
    for theme in "light", "dark":
        tab.emulate_media(color_scheme=theme)
        assert tab.evaluate(PALE) == []
    films = tab.evaluate("[...document.images].map(o => o.complete && o.checkVisibility() && o.naturalWidth > 100)")
    assert films and all(films)
    assert tab.errors == [] and tab.asked == [f"file://{page}"]

def test_what_the_contents_link_to_is_opened_and_in_sight(page, browser):
    tab = browser.open(f"file://{page}#calibration", 390)
    assert tab.evaluate("document.querySelector('#calibration details').open")
    for name in tab.evaluate("[...document.querySelectorAll('nav a')].map(o => o.hash)"):
        tab.evaluate(f"document.querySelector('nav a[href=\"{name}\"]').click()")
        tab.wait_for_function(f"decodeURIComponent(location.hash) === '{name}'")
        tab.wait_for_timeout(20)
        top, bottom, last = tab.evaluate(f"""[document.querySelector('{name} h2').getBoundingClientRect().top,
            document.querySelector('.warnings').getBoundingClientRect().bottom,
            innerHeight + scrollY > document.body.scrollHeight - 2]""")
        assert tab.evaluate(f"document.querySelector('{name}').querySelector(':scope > details')?.open ?? true")
        assert bottom - 1 <= top < 800 and (last or top < bottom + 60), name

def test_on_paper_everything_is_open_and_nothing_is_beside_the_edge(page, browser):
    tab = browser.open(f"file://{page}", 700, color_scheme="dark")
    tab.emulate_media(media="print")
    before = tab.evaluate(SHUT)
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert tab.evaluate(SHUT) == 0 and tab.evaluate(beside("nav")) == [] and tab.evaluate(PALE) == []
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    for name, word in ("all-metrics", "ROC-AUC"), ("comparisons", "gain"), ("table-1", "gain"):
        assert word in tab.evaluate(f"document.querySelector('#{name}').innerText")
    tab.evaluate("dispatchEvent(new Event('afterprint'))")
    assert tab.evaluate(SHUT) == before

def test_a_head_sorts_each_group_of_its_table(page, browser):
    tab = browser.open(f"file://{page}#all-metrics", 1100)
    head = "#all-metrics .table > table thead th:nth-child(2)"
    column = f"""[...document.querySelector('{head}').closest('table').tBodies].map(o =>
        [...o.rows].map(k => k.cells[1]?.textContent ?? k.textContent.trim()))"""
    before = tab.evaluate(column)
    for way in "descending", "ascending":
        tab.click(f"{head} button")
        assert tab.get_attribute(head, "aria-sort") == way
        for was, (group, *cells) in zip(before, tab.evaluate(column)):
            assert group == was[0] and sorted(cells) == sorted(was[1:])
            values = [float(o.split()[0]) for o in cells]
            assert values == sorted(values, reverse=way == "descending") and len(set(values)) > 2

def test_without_scripts_the_page_is_read_and_opened(page, browser):
    context = browser.chromium.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(f"file://{page}")
    tab.click("#comparisons summary")
    assert "Real-Meta to Ensemble" in tab.inner_text("#comparisons") and not tab.query_selector_all("button")
    context.close()

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
