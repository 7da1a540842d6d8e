"Settings are settled once, written down once, and read back as they were."
import hashlib, inspect, json, pickle
import pytest
from fastcore.docments import docments
from cxr_fastai.doctor import doctor
from cxr_fastai.gan.pipeline import run_gan
from cxr_fastai.settings import GAN_FLAGS, Gan, Plan, Training, named_by_content, plan_from, plan_of, takes
from cxr_fastai.study.run import run_study

CLASSES = Training, Gan, Plan

@pytest.mark.parametrize("cls", CLASSES)
def test_settings_are_frozen_compared_by_value_and_changed_into_others(cls):
    one, other = cls(), cls()
    assert one == other and hash(one) == hash(other) and repr(one) == repr(other)
    assert pickle.loads(pickle.dumps(one)) == one
    name = cls.fields()[0]
    with pytest.raises(AttributeError, match="replace"): setattr(one, name, "x")
    assert one.replace(**{name: getattr(one, name)}) == one

def test_replacing_changes_that_alone():
    assert Training().replace(size=64) == Training(size=64) != Training()
    assert Plan().replace(training=Training(size=64)).training.size == 64

@pytest.mark.parametrize("cls", CLASSES)
def test_every_field_is_explained_and_typed(cls):
    told = docments(cls, full=True)
    for o in cls.fields(): assert told[o]["docment"] and told[o]["anno"] is not inspect.Parameter.empty, o

def test_weights_that_lie_here_are_named_by_their_content_and_others_by_their_name(tmp_path):
    (tmp_path/"a.pth").write_bytes(b"one")
    (tmp_path/"dir").mkdir()
    (tmp_path/"dir"/"model.safetensors").write_bytes(b"one")
    assert named_by_content(str(tmp_path/"a.pth")) == hashlib.sha256(b"one").hexdigest()[:16]
    before = {o: named_by_content(f"{o}{tmp_path/'dir'}") for o in ("", "local-dir:")}
    assert named_by_content(f"xrv:{tmp_path/'a.pth'}") == f"xrv:{named_by_content(str(tmp_path/'a.pth'))}"
    (tmp_path/"dir"/"model.safetensors").write_bytes(b"two")
    assert not {*before.values()} & {named_by_content(f"{o}{tmp_path/'dir'}") for o in before}
    for o in "none", "xrv:densenet121-res224-all", "hf-hub:me/net@abc", "gone.pth": assert named_by_content(o) == o

def test_a_backbone_is_given_weights_of_any_kind():
    plan = plan_of(backbones="densenet121=xrv:densenet121-res224-all,resnet50=hf-hub:me/net@abc", weights="none")
    assert plan.weights_of == dict(densenet121="xrv:densenet121-res224-all", resnet50="hf-hub:me/net@abc")
    assert plan_from(plan.flags()) == plan

def test_text_and_values_make_the_same_plan():
    text = plan_of(backbones="resnet18, vgg16=x.pth", arms="real,meta", seeds="0,1", primary="real,meta",
                   cat_names="sex")
    assert text == plan_of(backbones=["resnet18", "vgg16=x.pth"], arms=("real", "meta"), seeds=[0, 1],
                           primary=("real", "meta"), cat_names=["sex"])
    assert text.weights_of == {"resnet18": "auto", "vgg16": "x.pth"} and text.seeds == (0, 1)

@pytest.mark.parametrize("flags", [
    {}, dict(backbones="resnet18,vgg16=x.pth", weights="none"), dict(doses="1/8", policies="donor", gan_epochs=3),
    dict(protocol="paper", epoch_rule="best", gan="reference", gan_size=64, primary="real,meta", alpha=.01)])
def test_a_plan_is_read_back_from_its_json(flags):
    plan = plan_of(**flags)
    assert plan_from(json.loads(json.dumps(plan.flags()))) == plan

def test_a_gan_of_a_study_takes_size_precision_and_judge_from_its_classifiers():
    gan = plan_of(size=96, precision="fp32", weights="none").gan
    assert (gan.size, gan.precision, gan.weights) == (96, "fp32", "none")
    assert plan_of(size=96, gan_size=64, weights="imagenet").gan.replace(epochs=None).training["size"] == 64

@pytest.mark.parametrize("door", [run_study, doctor])
def test_one_definition_is_behind_every_door(door):
    flags, own = inspect.signature(door).parameters, inspect.signature(plan_of).parameters
    assert set(own) <= set(flags) and {*GAN_FLAGS.values(), "rivals", "size", "seeds"} <= set(own)
    for o in own: assert flags[o].default == own[o].default, o
    assert set(Gan.fields()) <= set(inspect.signature(run_gan).parameters)

def test_comments_follow_their_flags_and_list_the_words():
    told = docments(run_study)
    assert told["bs"] == docments(Training)["bs"] and "focal" in told["rivals"] and "film" in told["fusion"]

def test_what_a_function_has_itself_is_its_own():
    @takes(Training, but=["lr"])
    def f(size=3, **flags): return size
    assert inspect.signature(f).parameters["size"].default == 3 and "lr" not in inspect.signature(f).parameters

@pytest.mark.parametrize("flags, why", [
    (dict(arms="raal"), "'raal' is not known"), (dict(seeds="a"), "--seeds: a is no whole number"),
    (dict(protocol="mine"), "use clean or paper"), (dict(epoch_rule="first"), "use last or best"),
    (dict(precision="fp8"), "use auto or bf16 or fp16 or fp32"), (dict(gan="big"), "use fast or reference"),
    (dict(metadata="mine"), "is not known"), (dict(fusion="sum"), "is not known"), (dict(backbones=""), "at least"),
    (dict(primary="real,unreal"), "must be before,after"), (dict(alpha=.6), "above 0 and below"),
    (dict(epoch=3), "doesn't take 'epoch'")])
def test_what_is_not_known_gets_one_sentence(flags, why):
    with pytest.raises(ValueError, match=why): plan_of(**flags)
