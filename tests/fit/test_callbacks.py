import io, re, sys
import numpy as np, pandas as pd, pytest
from fastai.vision.all import Callback, ProgressCallback
from cxr_fastai.fit.callbacks import EpochTable, HistoryWriter, PlainTable, epoch_table
from cxr_fastai.models.learner import metadata_learner

COLUMNS = "train_loss valid_loss accuracy precision recall rocauc".split()

@pytest.fixture
def make(tiny_dls): return lambda **kwargs: metadata_learner(tiny_dls("metadata"), **kwargs)

def lines(text): return [o.split() for o in text.splitlines()]

def test_a_file_gets_the_papers_columns_as_plain_lines(make, capsys):
    learn = make()
    learn.fit_one_cycle(3, 1e-3)
    text = capsys.readouterr().out
    head, *table = lines(text)
    assert head == COLUMNS and len(table) == 3 and "\r" not in text and "█" not in text
    assert all(len(row) == 6 and all(re.fullmatch(r"\d+\.\d{6}", o) for o in row) for row in table)
    assert [float(o) for o in table[-1]] == pytest.approx(list(learn.recorder.values[-1]), abs=1e-6)
    assert all([o[i:i+12].strip() for i in range(0, 72, 12)] == o.split() for o in text.splitlines()) # in columns

def test_nothing_is_printed_but_epochs_of_training(make, rows, capsys):
    learn = make()
    learn.lr_find(num_it=6, show_plot=False)
    learn.validate()
    learn.get_preds()
    learn.tta(n=1)
    learn.predict(age=50)
    out, err = capsys.readouterr()
    assert (out, err) == ("", "")
    learn.fit(1)
    learn.get_preds()
    assert len(capsys.readouterr().out.splitlines()) == 2

def test_every_fit_has_its_own_head(make, capsys):
    learn = make(metrics=[])
    learn.fit(1)
    learn.fit(1)
    assert [o for o in lines(capsys.readouterr().out) if o[0] == "train_loss"] == [["train_loss", "valid_loss"]] * 2

class Terminal(io.StringIO):
    def isatty(self): return True

@pytest.mark.usefixtures("unasked")
def test_a_terminal_gets_fastais_bar_with_the_papers_columns(make, monkeypatch):
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert type(epoch_table()) is EpochTable
    learn = make()
    assert [type(o) for o in learn.cbs if isinstance(o, ProgressCallback)] == [EpochTable] and learn.progress
    learn.fit(2)
    text = sys.stdout.getvalue()
    table = [o.split() for o in re.split(r"[\r\n]+", text) if re.match(r"train_loss|\d\.\d{6} ", o)]
    assert "█" in text and table[0] == COLUMNS and len(table) == 3 and all(len(o) == 6 for o in table)

@pytest.mark.usefixtures("unasked")
def test_the_bar_asks_for_the_loss_when_it_is_drawn(make, monkeypatch):
    monkeypatch.setattr(sys, "stdout", Terminal())
    learn, asked = make(), []
    class Bar:
        def update(self, i): asked.append(str(self.comment) if i % 2 else None)
    class Loss:
        def item(self):
            asked.append("item")
            return .25
    bar, told = Bar(), EpochTable()
    told.learn, told.pbar, learn.iter, learn.smooth_loss = learn, bar, 0, Loss()
    told.after_batch() # which draws
    learn.iter = 1
    told.after_batch() # which doesn't
    assert asked == ["item", "0.2500", None]

def test_no_terminal_no_bar(make):
    learn = make()
    assert type(epoch_table()) is PlainTable and not [o for o in learn.cbs if isinstance(o, ProgressCallback)]

def test_history_has_the_papers_columns_and_a_row_an_epoch(make, tmp_path):
    file = tmp_path/"new"/"history.csv"
    learn = make(cbs=HistoryWriter(file))
    assert not file.exists()
    learn.fit_one_cycle(2, 1e-3)
    head, *table = file.read_text().splitlines()
    assert head.split(",") == COLUMNS and len(table) == 2
    assert all(re.fullmatch(r"\d+\.\d{6}", o) for row in table for o in row.split(","))
    np.testing.assert_allclose(pd.read_csv(file), [list(o) for o in learn.recorder.values], atol=1e-6)

def test_only_epochs_of_training_are_added_to_the_history(make, tmp_path):
    file = tmp_path/"history.csv"
    learn = make(cbs=HistoryWriter(file))
    learn.lr_find(num_it=6, show_plot=False)
    assert not file.exists()
    learn.fit(2)
    before = file.read_text()
    learn.validate()
    learn.get_preds()
    learn.tta(n=1)
    learn.lr_find(num_it=6, show_plot=False)
    learn.predict(age=50)
    assert file.read_text() == before
    learn.fit(1)
    assert file.read_text().startswith(before) and len(pd.read_csv(file)) == 3

def test_two_learners_share_no_history(make, tmp_path):
    for name in ("a", "b"): make(cbs=HistoryWriter(tmp_path/f"{name}.csv")).fit(1)
    assert len(pd.read_csv(tmp_path/"a.csv")) == len(pd.read_csv(tmp_path/"b.csv")) == 1

def test_history_is_written_at_every_epoch_and_never_half(make, tmp_path):
    seen, file = [], tmp_path/"h"/"history.csv"
    class Look(Callback):
        order = 70
        def after_epoch(self): seen.append(len(pd.read_csv(file)))
    make(cbs=[HistoryWriter(file), Look()]).fit(3)
    assert seen == [1, 2, 3] and [o.name for o in file.parent.iterdir()] == ["history.csv"]
