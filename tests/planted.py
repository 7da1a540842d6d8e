"Films whose class is exposure or a small spot, and generators that change one of both and nothing else."
import numpy as np
import pandas as pd
from PIL import Image

SIDE = 64
Y, X = np.mgrid[:SIDE, :SIDE]

def spot(y, x, sd=2.): return 90*np.exp(-((Y - y)**2 + (X - x)**2) / (2*sd*sd))
def shade(x): return x.astype(float) - 45*np.exp(-((Y - 32)**2 + (X - 32)**2) / (2*24**2)) # the middle darker, smoothly

class Darkens:
    "What an exposure does, and no illness."
    size, seen = SIDE, set()
    def digest(self, direction): return "d"*16
    def translate(self, pixels, direction): return shade(pixels).round().clip(0, 255).astype(np.uint8)

class Spots(Darkens):
    "A spot on a place of each film's own, the rest to the bit as it was."
    def digest(self, direction): return "5"*16
    def translate(self, pixels, direction):
        where = [np.random.default_rng(int(x.astype(int).sum())).uniform(16, 48, 2) for x in pixels]
        return np.stack([(x + spot(*o)).round().clip(0, 255).astype(np.uint8) for x, o in zip(pixels, where)])

def planted_rows(folder, kind, n=160, seed=0):
    "A film a patient; the positives are what `kind` ('tone' or 'texture') makes of such a film."
    rng, rows, make = np.random.default_rng(seed), [], dict(tone=Darkens(), texture=Spots())[kind]
    for i in range(n):
        coarse = Image.fromarray(rng.integers(70, 150, (12, 12), dtype=np.uint8))
        film = np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
        if i % 2: film = make.translate(film[None], "a2b")[0]
        Image.fromarray(film).save(file := folder/f"{i:03}.png")
        rows.append(dict(image=file.name, patient_id=f"p{i}", label=i % 2, age=50., sex="F", view="PA", follow_up=0,
                         file=str(file), split=["train", "train", "train", "valid", "test"][i//2 % 5]))
    rows = pd.DataFrame(rows)
    return rows.assign(label=pd.Categorical.from_codes(rows["label"], ["Normal", "Pneumonia"], ordered=True))
