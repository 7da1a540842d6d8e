"""Everything, for notebooks and recipes: `from cxr_fastai.all import *`."""
from .basics import *
from .audit import *
from .backbone import *
from .cache import *
from .cohort import *
from .data import *
from .fusion import *
from .leaks import *
from .learner import *
from .metadata import *
from .metrics import *
from .phantom import *
from .radiograph import *
from .report import *
from .show import *
from .study import *
from .tables import *
