"""What JPEG leaves of a picture."""

import io

import numpy as np
import torch
from PIL import Image


def squeezed(image: torch.Tensor, quality: int) -> torch.Tensor:
    """(1 or 3, H, W) float32 in [0, 1] after JPEG of a ``quality`` (1 to 95), the same kind.

    As cameras do, colour is kept at half the resolution.
    """
    values = (image * 255).round().byte().permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(values.squeeze(2) if len(image) == 1 else values).save(
        file, "JPEG", quality=quality, subsampling="4:2:0"
    )
    values = np.atleast_3d(np.array(Image.open(file)))
    return torch.from_numpy(values).permute(2, 0, 1) / 255
