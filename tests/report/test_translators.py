import json
import numpy as np, pandas as pd, pytest
from cxr_fastai.report.translators import alarm_notes, epoch_taken, pick_note, translator_notes

def history(*kernel, floor=.1):
    table = pd.DataFrame(dict(train_loss=1., kernel=kernel))
    table.loc[table["kernel"].notna(), ["floor", "untouched"]] = floor, .9
    return table.assign(features="net, untrained")

@pytest.mark.parametrize("kernel, taken", [
    ([.3, .2, .25], 1), ([.3, .05, .09, .2], 2), ([.01, .2, .3], 0), ([np.nan, .4, np.nan, .3], 3), ([.1, .1], 1),
    ([-.2, .3], 0), ([np.nan], None)])
def test_the_last_within_the_floor_else_the_nearest(kernel, taken): assert epoch_taken(history(*kernel)) == taken

def test_a_sentence_says_which_and_why():
    far = pick_note(history(.3, .2, .25), "Pneumonia")
    assert far.startswith("Epoch 2 translates: films of valid were then 0.2 from real Pneumonia of valid, and the near")
    assert "of the last epoch 0.25, before translation 0.9" in far and "net, untrained" in far
    near = pick_note(history(.3, .02), "Pneumonia")
    assert "Epoch 2" in near and "within the 0.1" in near and "last epoch" not in near
    assert pick_note(pd.DataFrame(dict(train_loss=[1.])), "x") == "" == pick_note(history(np.nan), "x")

def test_notes_of_a_folder(tmp_path):
    assert not translator_notes(tmp_path, "P") and not alarm_notes(tmp_path) # of before, or gone
    table = history(.3, .2).assign(alarm=[None, 'step 80: a, "b". And more.'])
    table.to_csv(tmp_path/"history.csv", index=False)
    (tmp_path/"settings.json").write_text(json.dumps(dict(select="kid", diffaug="cutout")))
    picked, shown = translator_notes(tmp_path, "P")
    assert "flatters them a little" in picked and "changed films (cutout)" in shown
    assert alarm_notes(tmp_path) == [f'ALARM: {tmp_path.name}, epoch 2, step 80: a, "b". And more.']
    table[["train_loss"]].to_csv(tmp_path/"history.csv", index=False)
    (tmp_path/"settings.json").write_text(json.dumps(dict(select="last", diffaug="")))
    assert translator_notes(tmp_path, "P") == [f"{tmp_path.name}: its last epoch translates."]
