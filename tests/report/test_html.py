import re
import numpy as np, pandas as pd
from matplotlib.figure import Figure
from cxr_fastai.report.html import Page, page_film

def html(page): return page.html("a<b", "above", ["about"])

def test_a_table_is_escaped_and_its_intervals_stand_with_their_values(tmp_path):
    page = Page(tmp_path).section("Scores")
    table = pd.DataFrame(dict(arm=["real-meta", "<b>"], auc=[.5, np.nan], auc_low=[.25, np.nan], auc_high=[.75, np.nan],
                              p_auc=[.0001, .25]))
    page.table(table, "A & B")
    text = html(page)
    assert "<title>a&lt;b · above</title>" in text and "A &amp; B" in text
    assert ('<th scope="row">Real-Meta</th><td data-head="auc">0.500 <small>[0.250, 0.750]</small></td>'
            '<td data-head="p auc">&lt;.001</td>') in text
    assert '<th scope="row">&lt;b&gt;</th><td data-head="auc">–</td><td data-head="p auc">0.250</td>' in text

def test_an_empty_table_is_a_sentence(tmp_path):
    page = Page(tmp_path).section("Failed cells")
    page.table(pd.DataFrame(), "Failed cells")
    assert page.sections[0]["parts"][0]["text"] == "Failed cells: none."

def test_six_columns_stand_on_the_page_and_all_of_them_behind(tmp_path):
    page = Page(tmp_path).section("Wide")
    wide = pd.DataFrame({"backbone": ["a", "b"], **{f"c{i}": [i, i] for i in range(9)}})
    page.table(wide, "Wide")
    page.table(wide, "Some", main=("c8", "c1", "not there"))
    page.table(wide.iloc[:, :7], "All")
    first, some, every = page.sections[0]["parts"]
    assert first["heads"] == [f"c{i}" for i in range(6)] and first["whole"]["heads"] == [f"c{i}" for i in range(9)]
    assert some["heads"] == ["c8", "c1"] and some["bodies"][0]["title"] == "a" # in the order that was asked for
    assert every["whole"] is None and "All 9 columns" in html(page)

def test_a_table_that_fits_a_telephone_stays_one(tmp_path):
    page = Page(tmp_path).section("Counts")
    page.table(pd.DataFrame(dict(step=["train", "test"], rows=[5, 6], patients=[3, 4])), "Few letters")
    page.table(pd.DataFrame({f"c{i}": ["0.846 [0.770, 0.899] sd 0.005"] for i in range(4)}), "Many")
    assert [o["cards"] for o in page.sections[0]["parts"]] == [False, True]
    assert "0.846 <small>[0.770, 0.899]</small> <small>sd 0.005</small></td>" in html(page)

def test_a_cell_is_taken_apart_only_at_an_interval(tmp_path):
    page = Page(tmp_path).section("Odd")
    odd = ["-", "[0.21, 0.96]", "age, median [quartiles]", "a [b", "", "x\n[1] y", "ü [–]"]
    page.table(pd.DataFrame(dict(a=odd)), "Odd")
    cells = [re.sub("<[^>]*>", "", o) for o in re.findall('<th scope="row">(.*?)</th>', html(page), re.S)]
    assert cells == odd

def test_warnings_stand_once(tmp_path):
    page = Page(tmp_path, ["Drawn <films>."])
    for title in "Cohort", "ROC", "PR": page.section(title)
    assert html(page).count("<p>Drawn &lt;films&gt;.</p>") == 1 and html(page).count("<section") == 3
    assert "<aside" not in html(Page(tmp_path).section("x"))

def test_names_are_one_each(tmp_path):
    page = Page(tmp_path)
    for title in "A b", "a-b", "", "ü", "ü": page.section(title).text("x")
    assert [o["anchor"] for o in page.sections] == ["a-b", "a-b-2", "part", "ü", "ü-2"]
    ids = re.findall(' id="([^"]+)"', html(page))
    assert len(ids) == len(set(ids))

def test_figures_are_svg_of_the_page_and_files_beside_it(tmp_path):
    page, fig = Page(tmp_path).section("Figures"), Figure()
    fig.subplots().set_title("<script>alert(1)</script> & \"it\"")
    page.figures([("a/b <c>", fig, "Of <it>")])
    text = html(page)
    assert {o.name for o in tmp_path.iterdir()} == {"a-b-c-.png", "a-b-c-.svg"}
    assert 'role="img" aria-label="Of &lt;it&gt;"' in text and "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert text.count("<script>") == 1 and "<metadata" not in text and "xlink" not in text

def test_a_film_is_part_of_the_page(tmp_path):
    page = Page(tmp_path).section("Films")
    page.films([page_film(np.zeros((8, 8), np.uint8), "Pneumonia", "<x>.png")])
    assert 'alt="Radiograph: Pneumonia, &lt;x&gt;.png" src="data:image/jpeg;base64,' in html(page)
    page.films([])
    assert len(page.sections[0]["parts"]) == 1
