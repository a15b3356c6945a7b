"""Smoothing and enlarging as products with a matrix, cheaper than passes over the pixels."""

from functools import lru_cache

import torch
from torch.nn import functional as F


@lru_cache(maxsize=8)
def tent(length: int, side: int) -> torch.Tensor:
    """The (length, length) matrix that smooths by a box of ``side``, twice; zeros lie outside."""
    place = torch.arange(length)
    box = ((place[:, None] - place).abs() <= side // 2).double() / side
    return (box @ box).float()


@lru_cache
def enlarged(knots: int, size: int) -> torch.Tensor:
    """The (size, knots) matrix that lays a smooth curve (bicubic) through ``knots`` values."""
    line = torch.eye(knots)[None, :, None]  # each knot alone
    size = (1, size)
    return F.interpolate(line, size, mode="bicubic", align_corners=True)[0, :, 0].T.contiguous()
