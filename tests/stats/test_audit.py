import re, subprocess, sys
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from sklearn import metrics as skm
from cxr_fastai.stats.audit import Audit, audit_table
from cxr_fastai.arms import comparisons_of
from cxr_fastai.stats.compare import compare_arms
from cxr_fastai.stats.scoring import METRICS, scores
from cxr_fastai.stats.tables import score_table, table1
from conftest import ROOT, SHARED

FIGURES, TABLE1 = ROOT/"data"/"paper_figures.csv", ROOT/"data"/"paper_table1.csv"
PAPER = SHARED.parent/"paper.txt"
needs_paper = pytest.mark.skipif(not PAPER.exists(), reason="needs the paper's text")
COUNTS, PRINTED = ["TP", "FP", "TN", "FN"], ["accuracy", "precision", "recall", "rocauc"]

def predictions(n, positives, rng, ties=False):
    "Labels and probabilities of one model of random skill."
    label = np.r_[np.ones(positives, int), np.zeros(n - positives, int)]
    prob = 1 / (1 + np.exp(-rng.normal(size=n) - label*rng.uniform(0, 2.5) + rng.uniform(-.5, 1)))
    return label, prob.round(1) if ties else prob

def epochs(n, positives, rows, seed=0, digits=6, ties=False, columns=PRINTED):
    "A printed table of `rows` models on one test set, and their true counts."
    rng = np.random.default_rng(seed)
    found = [scores(*predictions(n, positives, rng, ties)) for _ in range(rows)]
    text = pd.DataFrame([{c: f"{o[c]:.{digits}f}" for c in columns} for o in found])
    return text, np.array([[o[c.lower()] for c in COUNTS] for o in found])

def audit(table, tmp_path, **kwargs):
    table.to_csv(tmp_path/"t.csv", index=False)
    return audit_table(tmp_path/"t.csv", **kwargs)

def misfits(found): return found.rows.index[~found.rows.fits].tolist()

def altered(table, row, column, by=.001):
    table = table.copy()
    table.loc[row - 1, column] = f"{float(table.loc[row - 1, column]) - by:.6f}"
    return table

def test_paper_figures_are_one_test_set_of_201_with_84_positives():
    found = audit_table(FIGURES)
    assert (found.n, found.positives, found.explained, found.clash) == (201, 84, 29, False)
    assert found.rows.fits.all() and (found.rows.ways == 1).all() and list(found.rows.index) == list(range(1, 30))
    assert "29 of 29 rows" in str(found) and "no other set" in str(found)

def test_paper_counts_print_the_paper_again():
    rows = audit_table(FIGURES).rows
    text = pd.read_csv(FIGURES, dtype=str)
    again = pd.DataFrame(dict(accuracy=((rows.TP + rows.TN)/201).astype("float32"), # as fastai computes it
                              precision=rows.TP/(rows.TP + rows.FP), recall=rows.TP/84)).astype(float)
    assert (again.map("{:.6f}".format).to_numpy() == text[list(again)].to_numpy()).all()
    assert (rows.TP + rows.FN == 84).all() and (rows.FP + rows.TN == 117).all()

def test_paper_rocauc_is_a_whole_u_in_all_29_rows():
    u = pd.read_csv(FIGURES).rocauc * 84 * 117
    assert (abs(u - u.round()) <= 84*117*.5e-6).all()
    assert "rocauc x 84 x 117 is a whole number, or a half (a tie), in 29 of 29 rows" in str(audit_table(FIGURES))

def test_paper_table1_clashes_between_30_and_84_positives():
    found = audit_table(TABLE1, positives=84)
    assert found.clash and found.explained == 1 and found.positives is None and found.n is None
    assert found.columns["Real"][:2] == found.columns["Real-Meta"][:2] == [30, 60]
    assert found.columns["Ensemble"][:3] == [28, 56, 84]
    assert "the smallest that does is 420" in str(found)
    assert "84 positives serve Ensemble, not Real, Real-Meta." in str(found)

def test_paper_table1_clashes_without_being_told_the_positives(): assert audit_table(TABLE1).clash

def test_paper_table1_would_fit_a_cohort_of_420_positives():
    found = audit_table(TABLE1, max_positives=420)
    assert not found.clash and found.positives == 420 and found.explained == 3

def test_table1_keeps_the_three_decimals_as_printed():
    assert pd.read_csv(TABLE1, dtype=str).Real.tolist() == ["0.5667", "0.400", "0.6000"]

@needs_paper
def test_figures_agree_with_the_paper_number_by_number():
    block, printed = [], []
    for line in PAPER.read_text().splitlines():
        if re.fullmatch(r"(\d\.\d{6}\t){5}\d\.\d{6}", line): block.append(line.split("\t"))
        if caption := re.match(r"Fig\. (\d) Ensemble classifier performance metrics on (\S+)", line):
            printed += [[*caption.groups(), *o] for o in block]
            block = []
    ours = pd.read_csv(FIGURES, dtype=str)
    assert len(printed) == 29 and ours.to_numpy().tolist() == printed
    assert list(ours) == "figure model train_loss valid_loss accuracy precision recall rocauc".split()

@needs_paper
def test_table1_agrees_with_the_paper_number_by_number():
    lines = PAPER.read_text().splitlines()
    start = lines.index("Model\tReal\tReal-Meta\tEnsemble")
    assert [o.split("\t") for o in lines[start:start + 4]] == [o.split(",") for o in TABLE1.read_text().splitlines()]

@settings(max_examples=40, deadline=None)
@given(n=st.integers(20, 1500), share=st.floats(.02, .98), rows=st.integers(1, 12), seed=st.integers(0, 2**32 - 1),
       digits=st.integers(3, 6), ties=st.booleans())
@pytest.mark.slow
def test_any_true_table_is_explained(tmp_path_factory, n, share, rows, seed, digits, ties):
    positives = min(max(int(n*share), 1), n - 1)
    table, counts = epochs(n, positives, rows, seed, digits, ties)
    found = audit(table, tmp_path_factory.mktemp("a"))
    assert found.explained == rows and not found.clash and found.rows.fits.all() and found.n <= n

@pytest.mark.parametrize("n, positives, ties",
                         [(57, 9, False), (201, 84, True), (274, 64, False), (912, 212, True), (1999, 700, False)])
def test_six_decimals_give_back_the_counts(tmp_path, n, positives, ties):
    table, counts = epochs(n, positives, 12, seed=n, ties=ties)
    found = audit(table, tmp_path)
    assert (found.n, found.positives) == (n, positives)
    assert (found.rows[COUNTS].to_numpy() == counts).all()

def test_floats_written_in_full_and_in_float32_give_back_the_counts(tmp_path):
    rng = np.random.default_rng(3)
    found = [scores(*predictions(240, 60, rng)) for _ in range(10)]
    full = pd.DataFrame(found)[PRINTED]
    counts = pd.DataFrame(found)[["tp", "fp", "tn", "fn"]].to_numpy()
    for table in (full, full.astype("float32")):
        audited = audit(table, tmp_path)
        assert (audited.n, audited.positives) == (240, 60) and (audited.rows[COUNTS].to_numpy() == counts).all()

def test_columns_beyond_the_paper_are_checked_too(tmp_path):
    table, counts = epochs(300, 50, 6, columns=[*PRINTED, "specificity", "balanced_accuracy", "f1", "brier"])
    found = audit(table, tmp_path)
    assert (found.n, found.positives, found.explained) == (300, 50, 6)
    assert (found.rows[COUNTS].to_numpy() == counts).all()
    for column in ("specificity", "balanced_accuracy", "f1"):
        found = audit(altered(table, 4, column), tmp_path)
        assert misfits(found) == [4] and found.rows.doubt[4] == column

def test_accuracy_and_recall_alone_are_enough(tmp_path):
    table, counts = epochs(201, 84, 15, columns=["accuracy", "recall"])
    found = audit(table, tmp_path)
    assert found.n == 201 and found.explained == 15

@pytest.mark.parametrize("column", PRINTED)
def test_a_value_off_by_a_thousandth_names_its_row_and_column(tmp_path, column):
    found = audit(altered(pd.read_csv(FIGURES, dtype=str), 7, column), tmp_path)
    assert (found.n, found.positives, found.explained, found.clash) == (201, 84, 28, True)
    assert misfits(found) == [7] and column in found.rows.doubt[7] and found.rows.loc[7, COUNTS].isna().all()
    assert re.search(rf"Not of this test set, by .*{column}.*: row 7\.", str(found))

def test_two_test_sets_in_one_table_are_told_apart(tmp_path):
    first, second = epochs(201, 84, 10)[0], epochs(274, 64, 6, seed=1)[0]
    found = audit(pd.concat([first, second]), tmp_path)
    assert (found.n, found.positives, found.explained, found.clash) == (201, 84, 10, True)
    assert misfits(found) == list(range(11, 17)) and "Of these 6 rows 6 fit n=274 with 64 positives." in str(found)

@pytest.mark.parametrize("column", ["precision", "rocauc"])
def test_a_column_of_another_test_set_is_named(tmp_path, column):
    first, second = epochs(201, 84, 12)[0], epochs(274, 64, 12, seed=1)[0]
    found = audit(first.assign(**{column: second[column]}), tmp_path)
    assert found.clash and f"Without {column} all rows fit n=201 with 84 positives" in str(found)

def test_larger_test_sets_need_a_larger_max_n(tmp_path):
    table, _ = epochs(2111, 501, 8)
    assert audit(table, tmp_path).explained < 8
    assert audit(table, tmp_path, max_n=2500).n == 2111

def test_a_table_that_no_test_set_prints_is_said_to_be_none(tmp_path):
    table = pd.DataFrame(dict(accuracy=["0.912345"], precision=["0.100001"], recall=["0.987654"], rocauc=["0.512345"]))
    found = audit(table, tmp_path)
    assert found.n is None and found.positives is None and found.explained == 0 and found.clash
    assert found.rows.TP.isna().all() and "No row fits" in str(found)

def test_ties_make_u_a_half(tmp_path):
    label, prob = np.r_[np.ones(3), np.zeros(4)], np.array([.9, .6, .2, .6, .3, .2, .1])
    assert skm.roc_auc_score(label, prob)*12 == 9 # 8 pairs in order, two ties
    halves = dict(accuracy="0.714286", precision="0.666667", recall="0.666667", rocauc=f"{9.5/12:.6f}")
    found = audit(pd.DataFrame([halves | dict(rocauc=f"{o/12:.6f}") for o in (9, 9.5)]), tmp_path)
    assert found.explained == 2 and (found.n, found.positives) == (7, 3)
    assert audit(pd.DataFrame([halves | dict(rocauc=f"{9.25/12:.6f}")]), tmp_path).n != 7

def test_a_few_rows_of_even_counts_do_not_halve_the_test_set(tmp_path):
    rows = [(2, 4, 33), (0, 2, 17), (2, 6, 29)] # TP, FP, U of 20 cases with 2 positives
    table = pd.DataFrame([dict(accuracy=(tp + 18 - fp)/20, precision=tp/(tp + fp), recall=tp/2, rocauc=u/36)
                          for tp, fp, u in rows]).map("{:.6f}".format)
    found = audit(table, tmp_path)
    assert (found.n, found.positives, found.explained, found.clash) == (20, 2, 3, False)

def test_rocauc_must_agree_with_the_counts_of_its_row(tmp_path):
    table, _ = epochs(201, 84, 8)
    table.loc[2, "rocauc"] = f"{84*117*.25 / (84*117):.6f}" # a whole U, but below TP x TN pairs surely in order
    found = audit(table, tmp_path)
    assert misfits(found) == [3] and found.rows.doubt[3] == "rocauc"

@pytest.mark.parametrize("precision", ["nan", "0.000000", ""])
def test_nothing_predicted_positive_is_no_misfit(tmp_path, precision):
    table, _ = epochs(201, 84, 8)
    nothing = dict(accuracy=f"{117/201:.6f}", precision=precision, recall="0.000000", rocauc="")
    found = audit(pd.concat([table, pd.DataFrame([nothing])]), tmp_path)
    assert (found.n, found.explained) == (201, 9) and found.rows.loc[9, COUNTS].tolist() == [0, 0, 117, 84]

def test_undefined_precision_beside_a_recall_is_a_misfit(tmp_path):
    table, _ = epochs(201, 84, 8)
    table.loc[5, "precision"] = "nan"
    assert misfits(audit(table, tmp_path)) == [6]

def test_coarse_tables_say_that_other_test_sets_fit_too(tmp_path):
    found = audit(epochs(800, 230, 4, digits=2)[0], tmp_path)
    assert found.explained == 4 and re.search(r"So do [\d,]+ others", str(found))

def test_a_coarse_row_says_that_its_counts_are_not_settled(tmp_path):
    table, _ = epochs(800, 230, 6)
    table.loc[1] = [f"{float(o):.2f}" for o in table.loc[1]]
    found = audit(table, tmp_path)
    assert (found.n, found.explained) == (800, 6) and found.rows.ways.eq(1).tolist() == [True, False] + [True]*4
    assert "More than one set of counts prints row 2;" in str(found)

def test_our_own_epoch_table_passes(tmp_path):
    rng = np.random.default_rng(0)
    rows = [dict(train_loss=.5, valid_loss=.6) | {k: f(*o) for k, f in METRICS.items()}
            for o in (predictions(183, 43, rng) for _ in range(5))]
    pd.DataFrame(rows).to_csv(tmp_path/"history.csv", index=False, float_format="%.6f")
    found = audit_table(tmp_path/"history.csv")
    assert (found.n, found.positives, found.explained, found.clash) == (183, 43, 5, False)
    assert found.rows.train_loss.tolist() == [.5]*5

@pytest.mark.parametrize("n, positives", [(183, 43), (2400, 600)])
def test_our_own_table_1_passes(tmp_path, n, positives):
    rng = np.random.default_rng(0)
    arms, made = ("real", "meta", "real-meta", "real-synth-meta"), []
    for model in "resnet50", "vgg16":
        for arm in arms:
            label, prob = predictions(n, positives, rng)
            at = np.argsort(label, kind="stable") # the same films for every arm
            both = pd.DataFrame(dict(backbone=model, arm=arm, seed=0, image=range(n), patient_id=range(n),
                                     label=np.asarray(label)[at],
                                     probability=np.asarray(prob)[at], synthetic=False))
            made += [both.assign(side="test"), both.assign(side="valid")]
    predicted = pd.concat(made)
    cells = predicted[["backbone", "arm", "seed"]].drop_duplicates().assign(weights="none", train_prior=.3, prior=.3)
    compared = compare_arms(predicted, comparisons_of(arms), n=20)
    found = audit(table1(score_table(predicted, cells, n=20), compared), tmp_path)
    assert list(found.columns) == ["Real", "Meta", "Real-Meta", "Ensemble"]
    assert not found.clash and found.positives == positives

def test_arms_that_were_not_run_leave_their_column_open(tmp_path):
    table = pd.DataFrame(dict(Model=["a", "b"], Real=["0.5667", ""], Ensemble=["", "0.8214"]))
    found = audit(table, tmp_path)
    assert found.columns["Real"][0] == 30 and found.columns["Ensemble"][0] == 28

def test_a_column_over_no_number_of_positives_says_so(tmp_path):
    found = audit(pd.DataFrame(dict(Model=["a"], Real=["0.123456"])), tmp_path, max_positives=50)
    assert found.clash and found.columns == {"Real": []} and "positives are none up to 50." in str(found)

@pytest.mark.parametrize("cell, says", [
    ("1.2", "not between 0 and 1"), ("-0.1", "not between 0 and 1"), ("inf", "not between 0 and 1"),
    ("57%", "no number"), ("", "empty or nan"), ("nan", "empty or nan")])
def test_a_bad_cell_is_named_by_file_row_and_column(tmp_path, cell, says):
    table, _ = epochs(201, 84, 5)
    table.loc[3, "recall"] = cell
    with pytest.raises(ValueError, match=f"t.csv, row 4, column recall: .*{says}") as e: audit(table, tmp_path)
    assert "\n" not in str(e.value)

def test_a_bad_recall_by_arm_is_named_too(tmp_path):
    with pytest.raises(ValueError, match="t.csv, row 2, column Real: '57' is not between"):
        audit(pd.DataFrame(dict(Model=["a", "b"], Real=["0.5", "57"])), tmp_path)

def test_tables_without_metrics_are_refused_in_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="t.csv: no column recall, accuracy, precision, .*it has image, label"):
        audit(pd.DataFrame(dict(image=["a.png"], label=["Pneumonia"])), tmp_path)
    table, _ = epochs(50, 9, 2)
    with pytest.raises(ValueError, match="no column recall; counts rest on"): audit(table[["accuracy"]], tmp_path)
    with pytest.raises(ValueError, match="no rows"): audit(table[:0], tmp_path)
    with pytest.raises(FileNotFoundError, match="nope.csv"): audit_table(tmp_path/"nope.csv")
    for text in (b"", b'a,b\n"1,2\n3', b"recall,accuracy\n\xff\xfe,1"):
        (tmp_path/"bad.csv").write_bytes(text)
        with pytest.raises(ValueError, match="bad.csv can.t be read as a table"): audit_table(tmp_path/"bad.csv")

def test_headers_may_be_capitalised_and_spaced(tmp_path):
    table, _ = epochs(201, 84, 10)
    assert audit(table.rename(columns=lambda c: f" {c.title()} "), tmp_path).n == 201

def test_an_audit_prints_a_sentence_a_finding():
    found = audit_table(FIGURES)
    assert isinstance(found, Audit) and repr(found) == str(found)
    assert str(found).count("\n") == len(found.findings) and all(o.endswith(".") for o in found.findings)
    assert found._repr_markdown_().startswith("paper_figures.csv:\n\n- 29 of 29")

def recipe(*args):
    run = [sys.executable, str(ROOT/"recipes"/"audit.py"), *map(str, args)]
    return subprocess.run(run, capture_output=True, text=True, cwd="/", env=dict(PYTHONPATH=str(ROOT)))

def test_the_recipe_audits_the_paper_by_default():
    done = recipe()
    assert done.returncode == 0 and "29 of 29 rows" in done.stdout and "84 positives serve Ensemble" in done.stdout

@pytest.mark.slow
def test_the_recipe_takes_tables_and_refuses_bad_ones_in_one_line(tmp_path):
    assert recipe(TABLE1).stdout.startswith("paper_table1.csv:")
    assert "serve Ensemble" in recipe(FIGURES, "--table1", TABLE1).stdout
    done = recipe(tmp_path/"nope.csv")
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "nope.csv" in done.stderr

def test_the_recipe_explains_its_flags(): assert "the largest test set looked for" in recipe("--help").stdout
