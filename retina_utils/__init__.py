"""Retinal-vessel segmentation you can trust: the package behind the notebook series.

Nothing is re-exported. The module's name says where to look::

    from retina_utils import checkpoint, data, metrics, predict
"""

import os

# Two busy processes on few cores: OpenMP threads that spin while they wait make a training step
# five to twenty times slower. It must be said before torch is imported, and changes no result.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # large pages of memory, which come faster

__version__ = "0.2.0"


class RetinaError(ValueError):
    """Something that cannot go on; the message says what was found and what to do."""

    def __str__(self) -> str:
        return printable(super().__str__())


def printable(text) -> str:
    """``text`` fit for terminal and log: what steers them, or is no text, as an escape.

    File names can hold colours, a cursor that goes back, text from right to left, and bytes that
    are no UTF-8. Line breaks stay.
    """
    return "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode()
        for c in str(text)
    )
