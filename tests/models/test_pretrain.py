import pytest, torch
from cxr_fastai.cohort.leaks import LeakError
from cxr_fastai.data.loaders import RadiographDataLoaders
from cxr_fastai.models.learner import fusion_learner
from cxr_fastai.models.pretrain import pretrain, pretraining_rows

NUMBERS = dict(Pneumonia=20, Normal=12)

@pytest.fixture(scope="module")
def again(rows): return pretraining_rows(rows, NUMBERS)

def test_real_rows_come_again_each_as_often_as_another(rows, again):
    assert again.label.value_counts().to_dict() == NUMBERS and set(again.split) == {"train"}
    times = again.image[again.label == "Pneumonia"].value_counts()
    assert times.max() - times.min() <= 1 or times.max() == 2
    with pytest.raises(ValueError, match="no training row of Pneumonia"):
        pretraining_rows(rows[rows.label == "Normal"], NUMBERS)

def learner(rows, **kwargs):
    dls = RadiographDataLoaders.from_df(rows, size=32, bs=8)
    return fusion_learner(dls, "test_resnet", weights="none", **kwargs)

def quiet(learn, f):
    with learn.no_bar(), learn.no_logging(): return f()

def test_steps_are_counted_and_the_real_schedule_begins_anew(rows, again):
    learn = learner(rows)
    own, before = learn.dls, learn.model.state_dict()["head.lin.weight" if "head.lin.weight" in
                                                     learn.model.state_dict() else next(iter(learn.model.state_dict()))]
    before = before.clone()
    told = quiet(learn, lambda: pretrain(learn, again, 2, 1e-3))
    assert told == dict(pretraining_films=32, pretraining_steps=8)
    assert learn.dls is own and learn.fits == 0 and learn.opt is None
    assert any(not torch.equal(before, o) for o in learn.model.state_dict().values() if o.shape == before.shape)
    quiet(learn, lambda: learn.fine_tune(1, 1e-3))
    assert len(learn.recorder.values) == 1 and learn.fits == 1

def test_what_was_fitted_first_was_seen(rows, again):
    learn = learner(rows)
    quiet(learn, lambda: pretrain(learn, again, 1, 1e-3))
    assert learn.seen.hits(again).all()

def test_films_of_valid_or_test_are_refused(rows):
    held = rows[rows.split == "test"].head(10).assign(image=[f"{i}" for i in range(10)], patient_id=range(10))
    with pytest.raises(LeakError, match="on two sides"): pretrain(learner(rows), held, 1, 1e-3)

def test_fewer_films_than_a_batch_are_one_sentence(rows, again):
    with pytest.raises(ValueError, match="bs=8 is more than the 5 training rows"):
        pretrain(learner(rows), again.head(5), 1, 1e-3)

def test_other_rows_are_encoded_as_the_own_ones_are(rows, again):
    dls = RadiographDataLoaders.from_df(rows, size=32, bs=8)
    stats = dict(dls.metadata.stats)
    other = dls.of_rows(again.assign(age=99., view="AP"))
    assert other.metadata.stats == stats == dls.metadata.stats and len(other.train_ds) == 32
    assert other.one_batch()[1].shape == dls.one_batch()[1].shape
    assert other.train.bs == 8 and len(other.valid_ds) == len(dls.valid_ds)
