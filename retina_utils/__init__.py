"""Retinal-vessel segmentation you can trust: the package behind the notebook series.

Nothing is re-exported. The module's name says where to look::

    from retina_utils import data, metrics, models, predict
"""

import os

# Two busy processes on few cores: OpenMP threads that spin while they wait make a training step
# five to twenty times slower. It must be said before torch is imported, and changes no result.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from retina_utils.version import __version__

__all__ = ["__version__"]
