"""Other ways to a vessel map, for `prediction.py`: networks, and engines that run ours.

Weights are random: they change no time.
"""

import io
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

SIDE = 512
FLIPS = ((), (-1,), (-2,), (-2, -1))


class Block(nn.Module):
    """Twice convolution, ReLU and norm, beside a short way through."""

    def __init__(self, c_in: int, c_out: int):
        super().__init__()
        conv = [nn.Conv2d(c_in, c_out, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(c_out)]
        conv += [nn.Conv2d(c_out, c_out, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(c_out)]
        self.conv = nn.Sequential(*conv)
        self.short = nn.Sequential(nn.Conv2d(c_in, c_out, 1), nn.BatchNorm2d(c_out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x) + self.short(x)


class SmallUNet(nn.Module):
    """One half of a Little W-Net: widths 8, 16, 32, a convolution in every skip."""

    def __init__(self, c_in: int, widths: tuple[int, ...] = (8, 16, 32)):
        super().__init__()
        a, b, c = widths
        self.down = nn.ModuleList([Block(c_in, a), Block(a, b), Block(b, c)])
        self.up = nn.ModuleList([nn.ConvTranspose2d(c, b, 2, 2), nn.ConvTranspose2d(b, a, 2, 2)])
        self.skip = nn.ModuleList(
            nn.Sequential(nn.Conv2d(n, n, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(n))
            for n in (b, a)
        )
        self.fuse = nn.ModuleList([Block(2 * b, b), Block(2 * a, a)])
        self.head = nn.Conv2d(a, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        fine = self.down[0](x)
        middle = self.down[1](F.max_pool2d(fine, 2))
        x = self.down[2](F.max_pool2d(middle, 2))
        for i, seen in enumerate((middle, fine)):
            x = self.fuse[i](torch.cat([self.up[i](x), self.skip[i](seen)], 1))
        return self.head(x)


class LittleWNet(nn.Module):
    """Galdran et al. (2022): a second U-Net sees the photograph and what the first one found."""

    def __init__(self):
        super().__init__()
        self.first, self.second = SmallUNet(3), SmallUNet(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.cat([x, self.first(x)], 1))


@torch.inference_mode()
def usual_map(model: nn.Module, image: np.ndarray, fov: np.ndarray) -> np.ndarray:
    """The FOV's crop at 512 x 512, float32, four mirror images averaged, back at native size."""
    rows, columns = np.flatnonzero(fov.any(1)), np.flatnonzero(fov.any(0))
    window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    crop = torch.from_numpy(image[window]).permute(2, 0, 1)[None].float() / 255
    x = F.interpolate(crop, (SIDE, SIDE), mode="bilinear", antialias=True)
    mean = sum(model(x.flip(f)).sigmoid().flip(f) for f in FLIPS) / 4
    found = np.zeros(fov.shape, np.float32)
    back = F.interpolate(mean, crop.shape[-2:], mode="bicubic")[0, 0].clamp(0, 1)
    found[window] = back.numpy()
    return found * fov


def networks() -> Iterator[tuple[str, nn.Module | str]]:
    """Names of networks and the networks, or in words why there is none."""
    little = LittleWNet().eval()
    yield f"Little W-Net, {sum(p.numel() for p in little.parameters()):,} parameters", little
    makers = {
        "segmentation_models_pytorch": lambda m: m.Unet("resnet18", encoder_weights=None),
        "monai": lambda m: m.networks.nets.BasicUNet(2, 3, 1),
    }
    for name, make in makers.items():
        try:
            yield name, make(import_module(name)).eval()
        except ImportError as error:
            yield name, f"not installed ({error})"


def engines(model: nn.Module, x: torch.Tensor) -> Iterator[tuple[str, Callable | str]]:
    """Names of engines and our network run by them on ``x``, or in words why not."""
    file = io.BytesIO()
    try:
        with warnings.catch_warnings():  # that sizes are fixed from now on, as they may be
            warnings.simplefilter("ignore")
            torch.onnx.export(model.float(), (x,), file, dynamo=False)
        runtime = import_module("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = runtime.InferenceSession(file.getvalue(), options)
        name = session.get_inputs()[0].name
        yield "onnxruntime", lambda: session.run(None, {name: x.numpy()})
    except ImportError as error:
        yield "onnxruntime", f"not installed ({error})"
    try:
        vino = import_module("openvino")
        core, threads = vino.Core(), {"INFERENCE_NUM_THREADS": torch.get_num_threads()}
        threads["INFERENCE_PRECISION_HINT"] = "f32"
        compiled = core.compile_model(core.read_model(file.getvalue()), "CPU", threads)
        yield "openvino", lambda: compiled(x.numpy())
    except ImportError as error:
        yield "openvino", f"not installed ({error})"
