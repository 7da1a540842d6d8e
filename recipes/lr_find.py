"""Find a learning rate for a backbone on a cohort: `python recipes/lr_find.py --help`."""
from cxr_fastai.all import *

@call_parse
@takes(load_cohort, but=["split_seed"])
def main(
    arch:str="resnet50",  # timm name of the backbone
    size:int=256,         # side of the square images, pixels
    bs:int=32,            # images a batch
    seed:int=0,           # of cohort, split, initialisation and shuffling
    weights:str="auto",   # 'imagenet', 'none', a local .pth/.safetensors file, or 'auto'
    steps:int=100,        # steps of the range test
    out:str="runs",       # folder for the figure
    **flags,
):
    "Leslie Smith's learning rate range test on the fused learner; prints fastai's suggestions, saves the curve."
    dls = RadiographDataLoaders.from_df(load_cohort(**flags, split_seed=seed), out, size=size, bs=bs, seed=seed)
    learn = fusion_learner(dls, arch, weights=weights, seed=seed)
    found = learn.lr_find(num_it=steps, suggest_funcs=(minimum, steep, valley, slide))
    for name, lr in found._asdict().items(): print(f"{name:8} {lr:.2e}")
    file = Path(out)/f"lr_find-{arch}.png"
    with atomic(file) as tmp: plt.gcf().savefig(tmp, dpi=120)
    print(f"The curve is in {file}")
