import huggingface_hub as hub, numpy as np, pytest
from cxr_fastai.trained.front import front_matter, hub_ids, limits_of

CARD = dict(kind="fusion", weights="imagenet (timm/resnet50.a1_in1k)", licence="CC0", training={}, summary={})
TEST = dict(recall=.61234, recall_low=.4, rocauc=.8, brier=None, pr_auc=float("nan"), n=24, specificity=1)

def read(tmp_path, yaml):
    "As the hub reads it: from a file, and by its own class."
    (tmp_path/"README.md").write_text(f"---\n{yaml}\n---\n\n# A model\n", encoding="utf-8")
    assert hub.metadata_load(tmp_path/"README.md")
    return hub.ModelCard.load(tmp_path/"README.md").data

def test_the_hubs_own_classes_read_what_was_measured(tmp_path):
    data = read(tmp_path, front_matter(CARD, TEST, ["me/films", "you/more"]))
    assert data.pipeline_tag == "image-classification" and data.base_model == "timm/resnet50.a1_in1k"
    assert data.datasets == ["me/films", "you/more"] and data.metrics == ["recall", "specificity", "roc_auc"]
    assert {o.metric_type: o.metric_value for o in data.eval_results} == dict(recall=.6123, specificity=1, roc_auc=.8)
    for o in data.eval_results:
        assert (o.task_type, o.dataset_type, o.dataset_split) == ("image-classification", "me/films", "test")
    again = hub.ModelCard(f"---\n{data.to_yaml()}\n---\n").data
    assert again.to_dict() == data.to_dict() and "model-index" in data.to_dict()

def test_what_is_not_known_is_not_there(tmp_path):
    data = read(tmp_path, front_matter(CARD | dict(kind="metadata", weights="none"), {}))
    assert data.pipeline_tag == "tabular-classification" and "timm" not in data.tags
    assert not {"datasets", "base_model", "metrics", "model-index"} & set(data.to_dict())

@pytest.mark.parametrize("weights, base", [
    ("hf-hub:microsoft/rad-dino@abc123", "microsoft/rad-dino"), ("hf-hub:me/it@1f (sha256 0a; without head)", "me/it"),
    ("imagenet (https://a.b/c.pth)", None), ("none", None), ("/home/me/w.pth (sha256 0a)", None),
    ("imagenet (timm/x)\n- evil: 1", None), ("xrv:all (sha256 0a)", None)])
def test_a_base_model_is_an_id_of_the_hub_or_nothing(tmp_path, weights, base):
    assert read(tmp_path, front_matter(CARD | dict(weights=weights), TEST)).base_model == base

@pytest.mark.parametrize("licence, found", [
    ("CC-BY-4.0", ("cc-by-4.0", None)), ("Apache-2.0 \n", ("apache-2.0", None)),
    ("Terms (https://nihcc.app.box.com/v/NIHCC).", ("other", "https://nihcc.app.box.com/v/NIHCC")),
    ("not stated", ("other", "https://huggingface.co/OWNER/NAME#licence")),
    ("a: b\n---\n# x", ("other", "https://huggingface.co/OWNER/NAME#licence"))])
def test_a_licence_is_known_by_its_id_or_by_a_link(tmp_path, licence, found):
    data = read(tmp_path, front_matter(CARD | dict(licence=licence), TEST))
    assert (data.license, data.get("license_link")) == found

def test_figures_of_numpy_are_plain_ones():
    assert "numpy" not in front_matter(CARD, dict(rocauc=np.float64(.75), recall=np.float32(.5)))

@pytest.mark.parametrize("odd", ["films", "a/b/c", "../b", "a/b\n- c", "", 3, None])
def test_what_is_no_id_is_refused(odd):
    assert hub_ids("me/films") == ["me/films"] and hub_ids(()) == []
    with pytest.raises(ValueError, match="no id of the hub's: write 'OWNER/NAME'"): hub_ids([odd])

def test_limits_are_of_this_model():
    cautions, limits = limits_of(CARD | dict(metadata=dict(stats=dict(age=[1, 2], view=["AP"]))))
    assert cautions.startswith("**Not a medical device.**") and "drawn" not in cautions
    assert "- age, view may stand for the illness" in limits
    cautions, limits = limits_of(CARD | dict(training=dict(drawn=1), summary=dict(settings=dict(protocol="paper"))))
    assert "drawn films" in cautions and "leaky on purpose" in cautions and "What the film shows of age" in limits
