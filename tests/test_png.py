"""PNG files of our own making: what an image library reads is what was written."""

import io

import numpy as np
import pytest
from PIL import Image

from retina_utils.machine import png


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (40, 31), (40, 31, 3), (1, 1, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_what_is_written_is_read_again(shape, dtype):
    if len(shape) == 3 and dtype == np.uint16:
        pytest.skip("no file of ours has 16 bits a colour")
    array = np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)
    for given in (array, array[::-1], np.asfortranarray(array), array[..., ::-1]):
        with Image.open(io.BytesIO(png.encode(given))) as file:
            file.verify()
        with Image.open(io.BytesIO(png.encode(given))) as file:
            assert file.mode == {1: "L", 2: "I;16"}[array.itemsize] or array.ndim == 3
            assert np.array_equal(np.asarray(file), given)


def test_a_map_is_small():
    vessels = np.zeros((500, 500), np.uint8)
    vessels[100:110] = 255
    assert len(png.encode(vessels)) < vessels.size / 100
