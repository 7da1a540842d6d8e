import numpy as np, pytest
from math import ceil
from scipy.special import expit, logit
from scipy.stats import beta, norm
from cxr_fastai.stats.calibration import recalibration
from cxr_fastai.stats.sizes import area_size, benefit_size, log_odds, oe_size, slope_size, validation_sizes

SE = dict(wide=.1/3.92, slope=.2/3.92) # of 95% intervals .1 and .2 wide, as the papers round 1.96
MIDS = (np.arange(100_000) + .5)/100_000

def test_observed_over_expected_as_published():
    "Riley et al. 2021, section 3.1: 384.5 and 293.9; for an interval .2 wide at a tenth, 3461."
    assert oe_size(.5, .051) == pytest.approx(384.5, abs=.05) and oe_size(.1, .175) == pytest.approx(293.9, abs=.05)
    assert ceil(oe_size(.1, .051)) == 3461

@pytest.mark.parametrize("prevalence, auc, n", [(.1, .7, 1154), (.5, .8, 302), (.018, .8, 4252), (.018, .75, 5125),
                                                (.048, .743, 2027)])
def test_the_area_as_published(prevalence, auc, n):
    "Riley et al. 2021, sections 3.3 and 4; the last is eFalls'."
    assert ceil(area_size(auc, prevalence, SE["wide"])) == n

def test_the_slope_is_the_inverse_of_the_whole_information():
    "Of logistic regression on said log odds, a thousand of them: n times the variance of its slope."
    said = logit(beta.ppf(MIDS[::100], 1.33, 1.75))
    columns, likely = np.stack([np.ones(1000), said]), expit(said)*expit(-said)
    assert slope_size(said, .1) == pytest.approx(1000*np.linalg.inv(columns*likely @ columns.T)[1, 1]/.1**2)
    assert slope_size(np.repeat(said, 2), .1) == pytest.approx(slope_size(said, .1, np.full(1000, 3.)))

@pytest.mark.parametrize("values, n", [(norm.ppf(MIDS, -5, 2.5), 4501), (logit(beta.ppf(MIDS, .5, .5)), 1641)])
def test_the_slope_is_near_that_of_a_package_that_draws_a_thousand(values, n):
    "pmvalsampsize's own tests, whose drawn log odds have an error of some percent."
    assert slope_size(values, SE["slope"]) == pytest.approx(n, rel=.03)

def test_log_odds_of_an_area_are_calibrated_and_have_it():
    mean, sd = log_odds(.8, .018)
    assert mean == pytest.approx(-4.7, abs=.05) # their start of an iteration to it
    rng, ill = np.random.default_rng(0), np.arange(400_000) < 7200
    said = rng.normal(mean + ill*sd*sd, sd)
    assert expit(said).mean() == pytest.approx(.018, rel=.02)
    assert (rng.choice(said[ill], 40_000) > rng.choice(said[~ill], 40_000)).mean() == pytest.approx(.8, abs=.01)

def test_a_slope_that_is_measured_varies_as_promised():
    rng, n, found = np.random.default_rng(1), 600, []
    mean, sd = log_odds(.8, .3)
    for _ in range(150):
        said = rng.normal(mean + (rng.random(n) < .3)*sd*sd, sd)
        prob = expit(said)
        found.append(recalibration((rng.random(n) < prob).astype(int), prob)[0])
    at = np.linspace(mean - 9*sd, mean + 12*sd, 4001)
    usual = .7*norm.pdf(at, mean, sd) + .3*norm.pdf(at, mean + sd*sd, sd)
    assert np.mean(found) == pytest.approx(1, abs=.05)
    assert slope_size(at, np.std(found), usual) == pytest.approx(n, rel=.3)

def test_net_benefit_that_is_measured_varies_as_promised():
    rng, n, p, t = np.random.default_rng(0), 500, .3, .2
    ill = rng.random((4000, n)) < p
    called = rng.random(ill.shape) < np.where(ill, .7, .15)
    share = ill.mean(1)
    recall, alarms = (called & ill).sum(1)/ill.sum(1), (called & ~ill).sum(1)/(~ill).sum(1)
    found = recall - alarms*(1 - share)/share*t/(1 - t)
    assert benefit_size(.7, .85, p, t, found.std()) == pytest.approx(n, rel=.07)

def test_each_criterion_is_met_by_its_number_and_not_by_fewer():
    sizes = validation_sizes(.8, .2)
    for _, o in sizes.iterrows():
        for n, kept in (o["patients"], True), (o["patients"] - 1, False):
            width = validation_sizes(.8, .2, patients=n).set_index("criterion").loc[o["criterion"], "width_here"]
            assert (width <= o["width"] + 1e-9) == kept
    assert sizes["positives"].tolist() == [ceil(.2*o) for o in sizes["patients"]]
    assert sizes["patients"].iloc[[0, 2]].tolist() == [ceil(oe_size(.2, np.arcsinh(.1)/norm.ppf(.975))), 471]

def test_a_model_that_treats_everyone_or_nobody_has_a_benefit_too():
    for t in .0001, .9999:
        line = validation_sizes(.8, .2, t).iloc[3]
        assert np.isfinite(line["patients"]) and line["expected"] <= 1

@pytest.mark.parametrize("given, said", [
    (dict(auc=.5), "AUC of 0.5 has"), (dict(auc=1.), "AUC of 1 has"), (dict(auc=np.nan), "AUC of nan"),
    (dict(prevalence=0), "prevalence=0"), (dict(prevalence=1.2), "prevalence=1.2"),
    (dict(threshold=1.), "threshold=1"), (dict(patients=0), "patients=0")])
def test_what_has_no_criterion_is_named(given, said):
    with pytest.raises(ValueError, match=said): validation_sizes(**dict(auc=.8, prevalence=.2) | given)

def test_however_many_or_few_patients_there_are():
    for n in 1, 10**12: assert np.isfinite(validation_sizes(.85, 1e-6, patients=n).iloc[1:3, 1:].to_numpy(float)).all()

def test_a_model_that_says_the_same_of_all_needs_endless_patients(): assert slope_size(np.zeros(9), .1) == np.inf
