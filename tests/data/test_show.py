import matplotlib.pyplot as plt, numpy as np, pytest, torch
from PIL import Image
from cxr_fastai.data.show import TensorRadiograph

@pytest.fixture(params=["both", "image", "metadata"])
def learn(request, tiny_learner): return tiny_learner(request.param)

def shown():
    "What the last figure shows: each picture's gray as on screen, 0 black to 1 white, its title and its title's color."
    out = []
    for ax in plt.gcf().axes:
        if not ax.images: continue
        image = ax.images[0]
        out.append((np.asarray(image.norm(image.get_array())), ax.get_title(), ax.title.get_color()))
        assert image.get_cmap().name == "gray"
    return out

def words(row):
    "A row's metadata as it is written under a picture."
    age = "?" if np.isnan(row["age"]) else f"{row['age']:g}"
    return f"{row['sex']}, {row['view']}, {age}"

def valid(learn): return learn.dls.valid_ds.items

def test_radiograph_is_drawn_black_to_white_of_its_format():
    for x in (torch.full((1, 4, 4), 51, dtype=torch.uint8), torch.full((1, 4, 4), .2)):
        ax = TensorRadiograph(x).show()
        assert np.allclose(ax.images[0].norm(ax.images[0].get_array()), .2)

def test_show_batch(learn, capsys):
    learn.dls.valid.show_batch(max_n=6)
    rows = valid(learn).iloc[:6]
    if learn.dls.use == "metadata":
        text = capsys.readouterr().out
        for _, row in rows.iterrows(): assert any(words(row) in o and row["label"] in o for o in text.splitlines())
        return
    pictures = shown()
    assert len(pictures) == 6
    for (image, title, _), (_, row) in zip(pictures, rows.iterrows()):
        assert title == row["label"] + ("\n" + words(row) if learn.dls.use == "both" else "")
        np.testing.assert_allclose(image, np.asarray(Image.open(row["file"])) / 255, atol=.01)

def test_show_batch_of_training_shows_gray_images_neither_black_nor_white(learn):
    learn.dls.show_batch(max_n=4)
    if learn.dls.use == "metadata": return
    for image, title, _ in shown():
        assert image.min() >= 0 and image.max() <= 1 and .1 < image.mean() < .9 and image.std() > .03
        assert title.split("\n")[0] in ("Normal", "Pneumonia")
    assert len(shown()) == 4

def test_show_batch_unique_shows_one_radiograph(learn):
    if learn.dls.use == "metadata": return
    learn.dls.train.show_batch(max_n=3, unique=True)
    assert len({title for _, title, _ in shown()}) == 1 and len(shown()) == 3
    assert len(list(learn.dls.train)) > 3 # and the loader is as before

def test_show_batch_of_rows_without_label(learn, rows, capsys):
    learn.dls.test_dl(rows[["file", "sex"]].iloc[:3]).show_batch()
    if learn.dls.use == "metadata": assert f"{rows['sex'][0]}, ?, ?" in capsys.readouterr().out
    else: assert [t for _, t, _ in shown()] == [f"{o}, ?, ?"*(learn.dls.use == "both") for o in rows["sex"][:3]]

def test_show_results_gives_label_prediction_and_color(learn, capsys):
    learn.show_results(max_n=6, shuffle=False)
    rows = valid(learn).iloc[:6]
    called = [learn.dls.vocab[int(o)] for o in learn.get_preds()[0].argmax(1)[:6]]
    if learn.dls.use == "metadata":
        lines = capsys.readouterr().out.splitlines()
        for (_, row), name in zip(rows.iterrows(), called):
            assert any(o.split()[-2:] == [row["label"], name] and words(row) in o for o in lines)
        return
    assert len(shown()) == 6
    for (image, title, color), (_, row), name in zip(shown(), rows.iterrows(), called):
        assert title == f"{row['label']} / {name}" + ("\n" + words(row) if learn.dls.use == "both" else "")
        assert color == ("green" if row["label"] == name else "red")
        np.testing.assert_allclose(image, np.asarray(Image.open(row["file"])) / 255, atol=.01)

def test_show_results_shuffled_shows_as_many(learn):
    learn.show_results(max_n=3)
    assert len(shown()) == (0 if learn.dls.use == "metadata" else 3)

def test_plot_top_losses_are_the_worst_first(learn, capsys):
    from fastai.interpret import Interpretation # not before the package
    Interpretation.from_learner(learn).plot_top_losses(4)
    prob, label, loss = learn.get_preds(with_loss=True)
    worst = loss.argsort(descending=True)[:4]
    called = [learn.dls.vocab[int(o)] for o in prob.argmax(1)]
    want = [f"{called[i]} / {valid(learn)['label'].iloc[i]} / {float(loss[i]):.2f} / {float(prob[i].max()):.2f}"
            for i in worst.tolist()]
    if learn.dls.use == "metadata":
        text = capsys.readouterr().out
        assert all(o in text for o in want)
        return
    assert len(shown()) == 4
    for (image, title, _), text, i in zip(shown(), want, worst.tolist()):
        assert title == text + ("\n" + words(valid(learn).iloc[i]) if learn.dls.use == "both" else "")
        np.testing.assert_allclose(image, np.asarray(Image.open(valid(learn)["file"].iloc[i])) / 255, atol=.01)
