import numpy as np, pandas as pd
from cxr_fastai.report.html import Page

def test_a_table_is_escaped_and_its_intervals_stand_with_their_values(tmp_path):
    page = Page(tmp_path, []).section("Scores")
    table = pd.DataFrame(dict(arm=["real-meta", "<b>"], auc=[.5, np.nan], auc_low=[.25, np.nan], auc_high=[.75, np.nan],
                              p_auc=[.0001, .25]))
    page.table(table, "A & B")
    html = page.html("a<b")
    assert "<title>a&lt;b</title>" in html and "A &amp; B" in html
    assert '<th scope="row">Real-Meta</th><td>0.500 [0.250, 0.750]</td><td>&lt;.001</td>' in html
    assert '<th scope="row">&lt;b&gt;</th><td>–</td><td>0.250</td>' in html

def test_an_empty_table_is_a_sentence(tmp_path):
    page = Page(tmp_path, []).section("Failed cells")
    page.table(pd.DataFrame(), "Failed cells")
    assert page.sections[0]["parts"] == [dict(shape="text", text="Failed cells: none.", kind="said")]

def test_warnings_stand_in_every_section_of_scores(tmp_path):
    page = Page(tmp_path, ["Drawn films."])
    for title, scores in dict(Cohort=False, ROC=True, PR=True).items(): page.section(title, scores)
    assert page.html("x").count('<p class="warn">Drawn films.</p>') == 2 and page.html("x").count("<section") == 3
