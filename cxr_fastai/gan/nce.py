"""CUT's loss (Park et al. 2020, arXiv:2007.15651, eq. 1-5 and appendix C.1; figures as in the authors' implementation,
taesungp/contrastive-unpaired-translation): a patch of a translation is to be known among the patches of its source.

A generator's own layers say what a patch is like, and heads make vectors of that. The source's vectors are given: no
gradient flows into them."""
import torch
import torch.nn.functional as F
from fastai.torch_core import Module
from torch import nn

from ..fit.precision import uncast
from .losses import AdversarialLoss, is_weight

__all__ = ["CUTLoss", "PatchHeads", "checked_patches", "patch_nce"]

def checked_patches(
    n:int, # of a layer
) -> int:
    "As it is. ValueError where none could be told from another."
    if not isinstance(n, int) or n < 2: raise ValueError(f"patches={n!r}: one is told from others, so take 2 or more.")
    return n

def patch_nce(
    q:torch.Tensor,        # of a translation's patches `[n, p, d]`, of length 1
    k:torch.Tensor,        # of its source's, at the same places
    temperature:float=.07, # by which likenesses are divided
) -> torch.Tensor:         # of each image, `[n]`
    "Cross entropy of knowing each patch among all of the same image's source (eq. 2-4): at chance it is log p."
    with uncast(q.device): likeness = q @ k.transpose(1, 2) / temperature
    own = torch.arange(q.shape[1], device=q.device).expand(len(q), -1)
    return F.cross_entropy(likeness.flatten(0, 1), own.flatten(), reduction="none").view(len(q), -1).mean(1)

class PatchHeads(Module):
    """Vectors of length 1 from places in feature maps: two layers a map, fp32 whatever the nets' precision. They begin
    as torch's own: with the reference's biases of zero, the vectors of one gray channel had two directions in all."""
    def __init__(self,
        widths:list,     # channels of each map
        width:int=256,   # of each layer
        patches:int=256, # places in each map, or all that it has
    ):
        self.patches = patches
        self.heads = nn.ModuleList(nn.Sequential(nn.Linear(o, width), nn.ReLU(True), nn.Linear(width, width))
                                   for o in widths)

    def places(self,
        maps:list, # `[n, c, h, w]` each
    ) -> list:     # of indices into h*w
        "Of each map, places that are drawn anew, on its device: the same ones in all images."
        n = [o[0, 0].numel() for o in maps]
        return [torch.rand(o, device=maps[0].device).argsort()[:self.patches] for o in n]

    def forward(self,
        maps:list,   # `[n, c, h, w]` each, `c` of `widths`
        places:list, # of `places`
    ) -> list:
        "`[n, patches, width]` of each map."
        x = [o.flatten(2).index_select(2, at).transpose(1, 2).float() for o, at in zip(maps, places)]
        with uncast(x[0].device):
            return [F.normalize(head(o), dim=2) for head, o in zip(self.heads, x)]

class CUTLoss(AdversarialLoss):
    "The sum of its named parts, weighted as they enter it; the discriminator's is halved, as a CycleGAN's."
    def __init__(self,
        model:nn.Module,       # a `CUT`
        gan:str="lsgan",       # 'lsgan' (least squares) or 'bce': the adversarial loss
        lam:float=1.,          # weight of the contrast of patches; with `identity`, half for each class's films
        identity:bool=True,    # films of the minority, too, are to keep their patches
        idt_every:int=1,       # that, every so many steps, with as many times the weight
        temperature:float=.07, # of `patch_nce`
        diffaug:str="",        # names of `DIFFAUG`, with commas between, for the discriminator's inputs
    ):
        super().__init__(model, gan, identity, idt_every, diffaug)
        if not is_weight(lam): raise ValueError(f"lam={lam!r} is no number from 0 up.")
        if identity not in (True, False): raise ValueError(f"identity={identity!r}: a CUT's is True or False.")
        if not is_weight(temperature) or not temperature:
            raise ValueError(f"temperature={temperature!r} is no number above 0.")
        self.lam, self.temperature = lam, temperature

    @property
    def names(self):
        "Of the parts, and of the share of patches that the discriminator judges right."
        return ["adv_ab", "nce_a", *["nce_b"]*self.identity, "d_b", "acc_d_b"]

    def __call__(self,
        pred, # (fake_b, pairs) of the model: translations, and of each layer their patches' vectors and the sources'
        a,    # images of the majority
        b,    # images of the minority
    ):        # the scalar to go down; `parts` keeps its terms, and `acc_d_b`
        fake_b, pairs = pred
        each = torch.stack([patch_nce(q, k, self.temperature) for q, k in pairs]).mean(0) # of images, A's before B's
        weight = self.lam / (1 + self.identity)
        parts = dict(adv_ab=self._fool(self.model.d_b, fake_b))
        parts |= {name: weight * o.mean() for name, o in zip(("nce_a", "nce_b"), each.split(len(a)))}
        parts["d_b"], acc = self._tell(self.model.d_b, b, fake_b.detach())
        return self._total(parts, acc_d_b=acc)
