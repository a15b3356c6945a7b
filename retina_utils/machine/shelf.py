"""Arrays beyond memory: up to a limit as they are, beyond it in files that are mapped into it.

What is read again and again stays in memory as long as there is room, and worker processes share
it. The files are deleted with the shelf; those of a killed process stay, ``retina-*`` in /var/tmp.
"""

import mmap
import os
import shutil
import tempfile
import threading
import weakref
from pathlib import Path

import numpy as np


class Mapped(np.memmap):
    """A mapped file that a worker process opens again instead of receiving a copy."""

    def __reduce__(self):
        if isinstance(self.base, mmap.mmap):
            return _open, (self.filename, self.dtype, self.shape)
        return np.array(self).__reduce__()  # a part of one


def _open(path: str, dtype: np.dtype, shape: tuple[int, ...]) -> Mapped:
    return Mapped(path, dtype, "r", shape=shape)


class Shelf:
    """Keeps arrays; those beyond ``limit`` bytes in files. May be used by several threads."""

    def __init__(self, limit: int):
        self.left, self.folder, self.count, self.lock = limit, None, 0, threading.Lock()

    def __getstate__(self) -> dict:
        return {}  # a worker process reads and keeps nothing

    def keep(self, array: np.ndarray) -> np.ndarray:
        """The same values, in memory or, read-only, in a file."""
        with self.lock:
            if array.nbytes <= self.left:
                self.left -= array.nbytes
                return array
            if self.folder is None:
                self.folder = Path(tempfile.mkdtemp(prefix="retina-", dir=_disk()))
                weakref.finalize(self, _remove, self.folder, os.getpid())
            self.count += 1
            path = self.folder / str(self.count)
        array.tofile(path)
        return _open(str(path), array.dtype, array.shape)


def _remove(folder: Path, owner: int) -> None:
    """Delete the files, unless this is a worker process that only inherited them."""
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


def _disk() -> str | None:
    """A folder on a disk: /tmp is memory on many Linux systems. TMPDIR goes before."""
    chosen = any(name in os.environ for name in ("TMPDIR", "TEMP", "TMP"))
    return None if chosen or not os.access("/var/tmp", os.W_OK) else "/var/tmp"


def quarter_of_memory() -> int:
    """A quarter of the bytes this process may have: of the machine's or of its container's."""
    limits = [8 << 30]  # where the system does not say
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", ()):
        limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in ("memory.max", "memory/memory.limit_in_bytes"):  # cgroups 2 and 1
        try:
            limits.append(int((Path("/sys/fs/cgroup") / path).read_text()))
        except (OSError, ValueError):  # not there, or "max"
            continue
    return min(limits) // 4
