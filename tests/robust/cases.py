"""What every generated case has to keep to, and bytes that were damaged on their way."""

import resource
import signal
from collections import Counter
from contextlib import contextmanager

from hypothesis import strategies as st

from retina_utils import RetinaError

COUNT = Counter()  # cases by reader
SECONDS, KIB = 10, 2 * 1024**2  # allowed for one case, the memory beyond what there was


def _too_long(*_):
    raise AssertionError(f"more than {SECONDS} s")


@contextmanager
def one_case(reader, *names):
    """The block reads correct data, or ends in a RetinaError that says one of ``names``.

    Nothing else may come out of it, and it may take 10 s and 2 GiB at most.
    """
    COUNT[reader] += 1
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    before = signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(SECONDS)
    try:
        yield
    except RetinaError as error:
        said = str(error)
        assert any(name in said for name in names), said
        assert "Traceback" not in said and len(said.splitlines()[0]) < 1000, said
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < KIB


@st.composite
def damaged(draw, whole):
    """Bytes cut short, with flipped bits, a part left out, doubled or replaced."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        end = min(len(data), at + draw(st.integers(1, 64)))
        match draw(st.sampled_from(["cut", "flip", "drop", "double", "replace", "header"])):
            case "cut":
                del data[at:]
            case "flip" if data:
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "drop":
                del data[at:end]
            case "double":
                data[at:at] = data[at:end]
            case "replace":
                data[at:end] = draw(st.binary(max_size=64))
            case "header":
                at = draw(st.integers(0, min(len(data), 128)))
                data[at : at + 4] = draw(st.binary(min_size=4, max_size=4))
    return bytes(data)
