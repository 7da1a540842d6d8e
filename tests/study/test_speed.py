from fastai.callback.core import Callback
from cxr_fastai.models.learner import metadata_learner
from cxr_fastai.settings import plan_of
from cxr_fastai.study.speed import Undecoded, Watch, features_for, scored_rows, typical_rows

class Slow(Callback):
    "Counts steps."
    def before_fit(self): self.steps = 0
    def after_batch(self): self.steps += self.training

def test_steps_end_when_they_are_enough(tiny_dls, monkeypatch):
    monkeypatch.setattr("cxr_fastai.study.speed.LEAST", 0.)
    learn, count, watch = metadata_learner(tiny_dls("metadata")), Slow(), Watch()
    learn.fit(1, cbs=[count, watch])
    assert count.steps == len(watch.steps) == 4 < len(learn.dls.train) and len(watch.tails) == 1
    assert watch.fitted is learn and 0 < watch.step < watch.spent

def test_what_is_timed_is_the_studys_own(rows, tmp_path):
    plan = plan_of(backbones="test_resnet", size=32, weights="none", arms="meta", mode="probe", views=2)
    folds, one = Undecoded(rows, plan.replace(folds=3), tmp_path), Undecoded(rows, plan, tmp_path)
    assert typical_rows(folds).equals(folds.splits[0]) and typical_rows(one).equals(one.rows)
    assert scored_rows(Undecoded(rows, plan.replace(protocol="paper"), tmp_path))["split"].nunique() == 3
    assert features_for(plan.training, "test_resnet", "none").views == 2
