import pytest
from cxr_fastai.stats.counts import counts_of, excess_of, FP_BETWEEN, search_sets
from cxr_fastai.stats.scoring import Counts, METRICS

N, POSITIVES = 60, 25
ROWS = [(20, 4), (11, 0), (24, 17), (7, 9)] # TP and FP of four models of one test set

def printed(tp, fp, names):
    "Six decimals of each metric, as ranges."
    counts = Counts(tp, fp, POSITIVES - tp, N - POSITIVES - fp)
    return {k: (METRICS[k].formula(counts) - 5e-7, METRICS[k].formula(counts) + 5e-7) for k in names}

@pytest.mark.parametrize("name", [o for o in FP_BETWEEN if o in METRICS and METRICS[o].reads == "decisions"])
@pytest.mark.parametrize("tp, fp", ROWS)
def test_recall_and_any_other_metric_of_decisions_give_back_the_counts(name, tp, fp):
    assert counts_of(printed(tp, fp, ["recall", name]), N, POSITIVES) == (1, tp, fp)

def test_the_smallest_set_is_found_and_multiples_of_it_are_no_others():
    table = [printed(*o, ["accuracy", "recall", "precision"]) for o in ROWS]
    n, positives, explained, others = search_sets(table, 200)
    assert (n, positives, explained, len(others)) == (N, POSITIVES, 4, 0)
    assert counts_of(table[0], 2*N, 2*POSITIVES) == (1, 40, 8)
    assert counts_of(table[0], N, POSITIVES - 1) == (0, None, None)

def test_a_set_that_only_a_coarse_rocauc_makes_too_large_is_told():
    table = [printed(*o, ["accuracy", "recall", "precision"]) for o in ROWS]
    u = [.8123457, .7012346, .6512346, .5912346] # no whole U of 25 x 35
    assert excess_of([o | dict(rocauc=(a - 5e-7, a + 5e-7)) for o, a in zip(table, u)], 20*N, 20*POSITIVES) == 20
    assert excess_of(table, N, POSITIVES) == 1
