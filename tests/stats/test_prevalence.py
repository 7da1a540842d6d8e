import numpy as np, pandas as pd, pytest
from cxr_fastai.report.figures import plot_decision
from cxr_fastai.stats.prevalence import net_benefit, predictive_values, prevalence_table, sampling_note
from cxr_fastai.cohort.folder import flow_table, load_cohort

@pytest.fixture(scope="module")
def drawn():
    rng = np.random.default_rng(11)
    label = (rng.random(60) < .4).astype(int)
    return label, (rng.random(60)*.6 + .35*label*rng.random(60)).round(3)

@pytest.fixture(scope="module")
def study(drawn):
    label, prob = drawn
    parts = [pd.DataFrame(dict(backbone="net", arm=arm, seed=s, side=side, image=range(60), patient_id=range(60),
                               label=label,
                               probability=(prob + .01*s)*k, synthetic=False)) for side in ("valid", "test")
             for arm, k in (("real", 1.), ("real-meta", .9)) for s in (0, 1)]
    cells = pd.DataFrame([dict(backbone="net", arm=a, seed=s, train_prior=.4) for a in ("real", "real-meta")
                          for s in (0, 1)])
    return pd.concat(parts), cells

# by the package dcurves 1.1.7: dca(outcome, thresholds=..., prevalence=...)
@pytest.mark.parametrize("prevalence, expected", [
    (None, [0.47785076638032675, 0.44273301737756715, 0.35397123202001246, 0.22759243814289684]),
    (.02, [0.009600808489135929, -0.02608638350141547, -0.10167770318072825, -0.15585024969825617])])
def test_net_benefit_is_that_of_dcurves(drawn, prevalence, expected):
    at = [.0105, .0505, .2005, .4005]
    assert net_benefit(*drawn, at, prevalence)[0] == pytest.approx(expected, abs=1e-12)

def test_weights_are_patients_repeated(drawn):
    label, prob = drawn
    times = np.random.default_rng(0).integers(0, 3, 60)
    assert net_benefit(label, prob, [.2, .3], weights=times[None])[0] == pytest.approx(
        net_benefit(label.repeat(times), prob.repeat(times), [.2, .3])[0])

def test_predictive_values_by_hand():
    "Of 10,000 patients 100 are ill: 80 are found; of 9,900 others 990 are called, too."
    assert predictive_values(.8, .9, .01) == pytest.approx((80/1070, 8910/8930))
    ppv, npv = predictive_values(0., 1., .01)
    assert np.isnan(ppv) and npv == .99

def test_a_line_a_rule_at_the_stated_prevalence(study, drawn):
    table = prevalence_table(*study, .02, n=100).set_index(["arm", "rule"])
    label, prob = drawn
    rates = [((p > .5)[label == 1].mean(), (p <= .5)[label == 0].mean()) for p in (prob, prob + .01)]
    line = table.loc[("real", "above .5 as trained")]
    assert line.ppv == pytest.approx(np.mean([predictive_values(*o, .02)[0] for o in rates]))
    assert line.ppv_low < line.ppv < line.ppv_high
    above = table.loc[("real", "probability there above 0.04")]
    odds = lambda p: p/(1 - p)
    moved = [odds(p)*odds(.02)/odds(.4) for p in (prob, prob + .01)]
    gains = [net_benefit(label, o/(1 + o), .04, .02)[0, 0] for o in moved]
    assert above.net_benefit == pytest.approx(np.mean(gains)) and above.treat_all == pytest.approx(.02 - .98*.04/.96)
    assert table.loc[("real", "90% specificity on valid"), "npv"] > .98 and len(table) == 10

def test_a_share_that_is_none_is_refused(study):
    for wrong in 0, 1, 20, -.1:
        with pytest.raises(ValueError, match="is no share of positives"): prevalence_table(*study, wrong)

def test_decision_curves_are_drawn(study):
    ax = plot_decision(*study, .02).axes[0]
    assert ax.lines[0].get_ydata()[0] == pytest.approx(.02) and len(ax.lines) == 4

def test_the_share_of_positives_is_told_from_what_was_read():
    flow = pd.DataFrame([dict(step="with an image", rows=1000, positives=20, of_all=1000, with_others=9),
                         dict(step="at the first visit", rows=330, positives=3, of_all=600, with_others=2),
                         dict(step="drawn for the cohort", rows=15, positives=3, of_all=600, with_others=2),
                         dict(step="test", rows=5, positives=1)])
    said = sampling_note(flow)
    assert "20.0% of the films drawn, against 0.50% of the 600 films that were read of first visits." in said
    assert "45% of all films" in said and "67% of positives carry another finding" in said
    assert "for the author to say" in sampling_note(flow.drop(columns=["of_all", "with_others"]))

def test_what_was_read_is_counted():
    flow = flow_table(load_cohort(normals=30))
    assert flow["of_all"].notna().sum() == 4 and (flow["with_others"].dropna() <= flow["positives"][:4]).all()
    assert "made by sampling" in sampling_note(flow)
    everyone = flow_table(load_cohort())
    assert "none was left out" in sampling_note(everyone) and "sampling" not in sampling_note(everyone)
    assert "left out, though" not in sampling_note(flow) # no film here has other findings only
