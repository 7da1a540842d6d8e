"""The name of before of `cxr_fastai.cohort.phantom`: `python -m cxr_fastai.phantom data/phantom`."""
from .cohort.phantom import draw_radiograph, is_drawn, main, make_phantom

__all__ = ["draw_radiograph", "is_drawn", "make_phantom"]

if __name__ == "__main__": main()
