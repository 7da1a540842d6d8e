import matplotlib.pyplot as plt
import numpy as np, pandas as pd, pytest
from cxr_fastai.figures import *

ARMS = "real", "meta", "real-meta", "real-synth", "real-synth-meta"

def simulate(backbones=("resnet50",), arms=ARMS, seeds=(0, 1), n=160, seed=0):
    "Predictions of a study by hand: one truth, an arm's own strength, AP films half of them ill; real-synth-meta is bold."
    rng, parts = np.random.default_rng(seed), []
    for side, m in ("valid", n//2), ("test", n):
        ill = rng.random(m) < .3
        about = pd.DataFrame(dict(side=side, image=[f"{side}{i:03}.png" for i in range(m)], label=ill.astype(int)))
        about["patient_id"] = [str(i*4//5) for i in range(m)] if side == "test" else [f"v{i}" for i in range(m)]
        hard = rng.normal(size=m)
        for b in backbones:
            for k, arm in enumerate(arms):
                for s in seeds:
                    logit = (1 + .2*(k % 5))*ill + hard + .5*rng.normal(size=m) - 1.2 + .8*("synth" in arm)
                    parts.append(about.assign(backbone=b, arm=arm, seed=s, probability=1/(1 + np.exp(-logit)), synthetic=False))
    columns = "backbone arm seed side image patient_id label probability synthetic".split()
    return pd.concat(parts, ignore_index=True)[columns]
