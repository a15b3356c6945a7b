import pytest
import torch

from retina_utils.machine import jpeg


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_keeps_shape_and_range_and_loses_more_at_low_quality(channels):
    image = torch.rand(channels, 40, 56, generator=torch.Generator().manual_seed(0))
    lost = [float((jpeg.squeezed(image, quality) - image).abs().mean()) for quality in (25, 90)]
    assert 0 < lost[1] < lost[0] < 0.5
    kept = jpeg.squeezed(image, 25)
    assert kept.shape == image.shape and kept.dtype == torch.float32
    assert kept.min() >= 0 and kept.max() <= 1


def test_colour_is_kept_at_half_the_resolution():
    stripes = torch.zeros(3, 16, 16)
    stripes[0, :, ::2], stripes[2, :, 1::2] = 1, 0.387  # red and blue of one brightness, nearly
    kept = jpeg.squeezed(stripes, 95)
    contrast = (kept[0, :, ::2] - kept[0, :, 1::2]).mean()
    assert contrast < 0.5
