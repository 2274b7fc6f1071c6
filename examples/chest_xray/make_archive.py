"""Write one archive of small chest phantoms, for sites that a simulation makes unlike: phantoms.npz.

usage: make_archive.py FILE [PATIENTS]
"""

import sys

import numpy as np
from phantom import Exposure, transmitted

rng, count = np.random.default_rng(5), int(sys.argv[2]) if len(sys.argv) > 2 else 2000
labels = rng.integers(0, 2, count)
shadows = [-np.log(transmitted(rng, Exposure(32, 32, photons=40_000, blur=0.5), ill=bool(ill))) for ill in labels]
np.savez_compressed(sys.argv[1], images=np.array(shadows, np.float32), labels=labels, ids=np.arange(count))
