import re
import numpy as np, pandas as pd
from cxr_fastai.stats.formats import number, save_table, to_columns, to_latex, to_markdown, to_text, with_ends

def test_markdown_by_hand():
    table = pd.DataFrame({"Model": ["resnet50", "vgg16"], "recall": [.5, 1/3], "n": [7, 1234]})
    assert to_markdown(table) == ("| Model    | recall   | n    |\n"
                                  "| -------- | -------- | ---- |\n"
                                  "| resnet50 | 0.500000 | 7    |\n"
                                  "| vgg16    | 0.333333 | 1234 |")

def test_markdown_of_missing_cells_and_mixed_columns():
    table = pd.DataFrame({"a": ["x", None], "b": [np.nan, 1], "c": [.25, "z"]})
    assert [o.split() for o in to_markdown(table).split("\n")[2:]] == [
        ["|", "x", "|", "-", "|", "0.250000", "|"], ["|", "-", "|", "1.000000", "|", "z", "|"]]

def test_markdown_of_no_rows_is_its_head():
    assert to_markdown(pd.DataFrame({"a": [], "bc": []})) == "| a | bc |\n| - | -- |"

def test_plain_text_is_aligned():
    table = pd.DataFrame({"Model": ["resnet50", "vgg16"], "recall": [.5, 1/3]})
    assert to_text(table) == "Model     recall\nresnet50  0.5000\nvgg16     0.3333"

def test_columns_for_people_are_aligned_and_have_three_digits():
    table = pd.DataFrame({"Model": ["resnet50", "vgg16"], "x": [747.541536, .90909], "n": [7, 1234],
                          "recall": ["0.9091 [0.77, 1.00]", "1.0000 [0.00001, 0.5] of 1.2.3456"]})
    assert to_columns(table) == ("Model     x      n     recall\n"
                                 "resnet50  748    7     0.909 [0.77, 1.00]\n"
                                 "vgg16     0.909  1234  1.000 [0.00001, 0.5] of 1.2.3456")

def test_columns_that_do_not_fit_follow_below():
    cells = {f"c{i}": ["0.5 [0, 1]"]*3 for i in range(5)}
    table = pd.DataFrame({"net": ["a", "a", "b"], "arm": ["x", "y", "x"], **cells})
    text = to_columns(table, width=40, by="net")
    assert max(map(len, text.splitlines())) <= 40 and text.split("\n\n")[0].splitlines() == [
        "  arm  c0          c1", "a", "  x    0.5 [0, 1]  0.5 [0, 1]", "  y    0.5 [0, 1]  0.5 [0, 1]", "b",
        "  x    0.5 [0, 1]  0.5 [0, 1]"]
    assert [o.split()[1:] for o in text.splitlines() if "arm" in o] == [["c0", "c1"], ["c2", "c3"], ["c4"]]

def test_columns_of_odd_tables():
    assert to_columns(pd.DataFrame({"a": [], "bc": []})) == "a  bc" and to_columns(pd.DataFrame({"a": ["x"]})) == "a\nx"
    assert to_columns(pd.DataFrame({"a": [np.nan, np.inf], "b": [None, -.00012]})) == "a  b\n-  -\n-  -0.00012"
    wide = to_columns(pd.DataFrame({"a": ["x"*200], "b": [1], "c": [2]}))
    assert [o.split()[-1] for o in wide.splitlines() if o] == ["b", "1", "c", "2"]

def test_latex_escapes_what_would_break_it():
    table = pd.DataFrame({"Gain %": ["+12.0% [a_b]", "50 & {x} ~ ^ # $ \\"]})
    body = to_latex(table).splitlines()
    assert body[0] == r"\begin{tabular}{l}" and body[2] == r"Gain \% \\"
    assert body[4] == r"+12.0\% [a\_b] \\"
    assert body[5] == r"50 \& \{x\} \textasciitilde{} \textasciicircum{} \# \$ \textbackslash{} \\"
    assert body[-1] == r"\end{tabular}"

def test_a_table_is_saved_four_times(tmp_path):
    table = pd.DataFrame({"Model": ["resnet50"], "recall": [.5]})
    save_table(table, tmp_path/"table1")
    assert {o.name for o in tmp_path.iterdir()} == {"table1.csv", "table1.md", "table1.txt", "table1.tex"}
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path/"table1.csv"), table)
    assert (tmp_path/"table1.md").read_text() == to_markdown(table) + "\n"

ODD = ["a|b", "<script>x</script>", "[x](javascript:y)", "![x](http://y)", "&lt;", "`code`", "back\\slash",
       "back\\|bar", "two\nlines", "tab\tesc\x1b[31m", "p < .001", "a & b",
       "[0.71, 0.85]", "*bold*"]

def test_no_sign_makes_another_cell_or_html_of_markdown():
    lines = to_markdown(pd.DataFrame({"x|<b>": ODD, "y": 1})).splitlines()
    assert len(lines) == len(ODD) + 2 and all(len(re.split(r"(?<!\\)(?:\\\\)*\|", o)) == 4 for o in lines)
    assert not re.search(r"<[A-Za-z/!?]|\]\(|&lt;/|(?<!\\)`", "\n".join(lines).replace("&lt;", ""))
    assert "p < .001" in lines[12] and "a & b" in lines[13] and "[0.71, 0.85]" in lines[14] # as they were

def test_text_and_latex_keep_a_line_a_row():
    table = pd.DataFrame({"x": ODD})
    assert len(to_text(table).splitlines()) == len(ODD) + 1 and "\x1b" not in to_text(table)
    body = to_latex(table).splitlines()[4:-2]
    assert len(body) == len(ODD) and body[0] == r"a\textbar{}b \\" and body[12] == r"{}[0.71, 0.85] \\"
    assert body[13] == r"{}*bold* \\"
    assert body[10] == r"p \textless{} .001 \\"

def test_a_table_with_two_columns_of_one_name_has_both():
    assert to_text(pd.DataFrame([[1, 2]], columns=["a", "a"])) == "a  a\n1  2"

def test_no_minus_stands_before_a_nought_and_nothing_is_endless():
    assert [number(o, 3) for o in (-.0001, 0., -1.5, np.inf, -np.inf, np.nan)] == ["0.000", "0.000", "-1.500", *"---"]
    assert number(1234.5, 1, "+,") == "+1,234.5" and number(-.0001, 3, "+") == "0.000"
    assert with_ends(-.042, -.083, -.0002, "+") == "-0.042 [-0.083, 0.000]"
    assert "inf" not in to_markdown(pd.DataFrame(dict(gain=[np.inf, 1.])))
