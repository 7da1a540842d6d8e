import base64, io, json, re, shutil, subprocess
from html.parser import HTMLParser
import matplotlib.pyplot as plt
import numpy as np, pandas as pd, pytest
from PIL import Image
from cxr_fastai.arms import comparisons_of
from cxr_fastai.compare import compare_arms
from cxr_fastai.cohort import positive, save_rows
from cxr_fastai.files import write_json
from cxr_fastai.formats import save_table
from cxr_fastai.report import plot_gan, report
from cxr_fastai.tables import metrics_table, score_table, subgroups, table1
from conftest import make_rows
from test_figures import ARMS

CHROMIUM = shutil.which("chromium")
DOSES = "real-synth-meta+1/8", "real-synth-meta+1/2", "real-synth-meta+1"
def write_gan(folder, rows, n=8):
    "A folder as `synthesise` and `_judge` leave it: films of the majority stand for their translation."
    source = rows[(rows["split"] == "train") & ~positive(rows)].head(n)
    folder.mkdir(parents=True)
    lines = source[["image", "file", "patient_id"]].add_prefix("source_").assign(
        image=[f"a2b_{i}.png" for i in range(len(source))], patient_id=source["patient_id"], split="train", direction="a2b",
        label=pd.Categorical(["Pneumonia"]*len(source), ["Normal", "Pneumonia"], ordered=True), size=32, seed=0, zoom=1.,
        donor_image=None, generator="g", metadata_policy="matched", sex="F", view="AP", age=50., angle=0., shift_x=0., shift_y=0.)
    for o in lines.itertuples(): shutil.copy(o.source_file, folder/o.image)
    save_rows(lines, folder/"manifest.csv")
    write_json(folder/"generator.json", dict(cat_names=["sex", "view"], cont_names=["age"]))
    pd.DataFrame(dict(figure=["Fréchet distance", "told apart (AUC)"], value=[151.2, .94], low=[130., .9], high=[170., .97],
                      floor=[120., .5], floor_low=[100., np.nan], floor_high=[140., np.nan], n=n,
                      features="resnet18, untrained")).to_csv(folder/"quality.csv", index=False)
    near = pd.DataFrame(dict(file=[str(folder/o) for o in lines["image"]], nearest_file_features=lines["source_file"].array))
    near.assign(distance_features=5.9, distance_pixels=.1, real_features=5.2, real_pixels=.3, features="resnet18"
                ).to_csv(folder/"memorised.csv", index=False)
    losses = dict(train_loss=[2., 1.5], d_a=[.4, .3], acc_d_a=[.5, .6])
    pd.DataFrame(losses).to_csv(folder.parent/"history.csv", index=False)
    save_rows(rows, folder.parent/"rows.csv")

def make_study(out, rows, backbones=("resnet50", "vgg16"), arms=ARMS, seeds=(0, 1), protocol="clean", data="nih", failed=(), seed=0):
    "A study's folder by hand: probabilities are drawn, and so are its tables; `failed` cells have an error."
    rng, folder = np.random.default_rng(seed), out/"study-1a2b3c4d"
    folder.mkdir(parents=True)
    made = out/"cyclegan-0a1b2c3d"/"a2b-8-matched"
    write_gan(made, rows)
    settings = dict(backbones=list(backbones), arms=list(arms), seeds=list(seeds), protocol=protocol, epoch_rule="last",
                    positive="Pneumonia", negative="Normal", data=data, size=64, epochs=3, bs=16, lr=1e-3, weights="none",
                    precision="fp32", fusion="concat", synthetic=None, metadata="matched", gan="fast", gan_epochs=2, gan_size=64,
                    cat_names=["sex", "view"], cont_names=["age"], split_seed=0, versions=dict(cxr_fastai="0.1", torch="2.15"))
    write_json(folder/"settings.json", settings)
    save_rows(rows, folder/"rows.csv")
    step = lambda name, o: dict(step=name, rows=len(o), patients=o["patient_id"].nunique(), positives=int(positive(o).sum()))
    flow = [step("with an image", rows)] + [step(o, rows[rows["split"] == o]) for o in ("train", "valid", "test")]
    pd.DataFrame(flow).to_csv(folder/"flow.csv", index=False)
    asked, cells, parts = rows[rows["split"] != "train"], [], []
    hard = rng.normal(size=len(asked))
    for b in backbones:
        for k, arm in enumerate(arms):
            for s in seeds:
                cell = dict(backbone=b, arm=arm, seed=s, folder=f"cells/{b}-{k}-{s}", gan="", weights="none", error=None)
                if "synth" in arm: cell["gan"] = made.relative_to(out)
                cells.append(cell)
                if (b, arm, s) in failed:
                    cell["error"] = f"{b}-{arm}-{s}: RuntimeError: <b>no</b> memory"
                    continue
                cell |= dict(train_prior=.5 if "synth" in arm else .3, prior=.3, seconds=12.5)
                (out/cell["folder"]).mkdir(parents=True)
                falls = np.linspace(.7, .4, 3) + rng.normal(0, .02, (2, 3))
                history = dict(zip(("train_loss", "valid_loss"), falls)) | {o: [.5, .6, .65 + .02*s] for o in ("recall", "rocauc")}
                pd.DataFrame(history).to_csv(out/cell["folder"]/"history.csv", index=False)
                logit = (1 + .2*(k % 5))*positive(asked) + hard + .5*rng.normal(size=len(asked)) - 1 + ("synth" in arm)
                logit += 2.*(asked["view"] == "AP") * (arm == "meta")
                parts.append(pd.DataFrame(dict(backbone=b, arm=arm, seed=s, side=asked["split"], image=asked["image"],
                                               patient_id=asked["patient_id"], label=positive(asked).astype(int),
                                               probability=1/(1 + np.exp(-logit)), synthetic=False)))
    cells = pd.DataFrame(cells)
    cells.to_csv(folder/"cells.csv", index=False)
    predictions = pd.concat(parts)
    predictions.to_csv(folder/"predictions.csv", index=False)
    compared, scored = compare_arms(predictions, comparisons_of(arms), n=50), score_table(predictions, cells, protocol=protocol, n=50)
    save_table(table1(scored, compared), folder/"table1")
    save_table(metrics_table(scored), folder/"metrics")
    save_table(compared, folder/"comparisons")
    save_table(subgroups(predictions, rows, n=50), folder/"subgroups")
    return folder
