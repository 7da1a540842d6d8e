import matplotlib.pyplot as plt, numpy as np, pytest
from cxr_fastai.core.style import save_figure, show_film

def gray(ax): return np.asarray(ax.images[0].norm(ax.images[0].get_array()))

@pytest.mark.parametrize("film", [np.full((4, 4), 51, np.uint8), np.full((4, 4), .2), np.full((4, 4), .2, np.float32)])
def test_a_film_is_drawn_black_to_white_of_its_format_or_as_is_asked(film):
    fig, (ax, other) = plt.subplots(1, 2)
    show_film(ax, film, "Normal")
    show_film(other, film, vmax=film.max())
    assert np.allclose(gray(ax), .2) and np.allclose(gray(other), 1) and ax.images[0].get_cmap().name == "gray"
    assert ax.get_title() == "Normal" and not ax.axison
    plt.close(fig)

def test_a_saved_figure_has_the_same_bits_each_time_and_is_closed(tmp_path):
    for name in "ab":
        fig, ax = plt.subplots(figsize=(1, 1))
        ax.plot([0, 1])
        save_figure(fig, tmp_path/f"{name}.png")
        assert not plt.fignum_exists(fig.number)
    assert (tmp_path/"a.png").read_bytes() == (tmp_path/"b.png").read_bytes()
