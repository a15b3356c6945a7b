"""Our preparation in ONNX's operators: what `frame.py`, `patches.py` and `predict.py` say, again.

Each function bears the name of what it does again, and gives the same to a few millionths. They
are never run here: onnxscript reads their source and writes a graph. Arrays are (1, C, h, w). No
name is given to a size in them: onnxruntime takes sizes of one name for equal everywhere.
"""

import numpy as np
import onnx
from onnxscript import BOOL, DOUBLE, FLOAT, INT64, UINT8, script, values
from onnxscript import opset20 as op
from torch import nn

from retina_utils.checkpoint import Network

OPSET = 20  # of ONNX; onnxruntime reads it from 1.17 on
OWN = values.Opset("retina", 1)  # of the network, until its nodes are put where it is called


@script(default_opset=op)
def first_and_end(inside) -> INT64[2]:
    """Where the first True is, and the place after the last."""
    number = op.Cast(inside, to=UINT8.dtype)
    first = op.ArgMax(number, axis=0, keepdims=1)
    last = op.ArgMax(number, axis=0, keepdims=1, select_last_index=1)
    return op.Concat(first, last + 1, axis=0)


@script(default_opset=op)
def area_mean(array, pixels: INT64[1]):
    """(length, n) -> (n, pixels): means over each new pixel, by a difference of running sums."""
    length = op.Shape(array, start=0, end=1)
    step = op.Cast(length, to=DOUBLE.dtype) / op.Cast(pixels, to=DOUBLE.dtype)
    sums = op.Pad(op.CumSum(array, 0), [1, 0, 0, 0])
    edges = op.Cast(op.Range(0, op.Squeeze(pixels) + 1, 1), to=DOUBLE.dtype) * step
    below = op.Min(op.Cast(op.Floor(edges), to=INT64.dtype), length)
    share = op.Unsqueeze(edges - op.Cast(below, to=DOUBLE.dtype), [1])
    lower, upper = op.Gather(sums, below), op.Gather(sums, op.Min(below + 1, length))
    at = lower + (upper - lower) * share
    totals = op.Slice(at, [1], pixels + 1, [0]) - op.Slice(at, [0], pixels, [0])
    return op.Transpose(totals / step, perm=[1, 0])


@script(default_opset=op)
def resize(array, size: INT64[2]):
    """(1, C, H, W) by Pillow's bicubic filter, rounded where its type asks for it."""
    sizes = op.Concat(op.Shape(array, start=0, end=2), size, axis=0)
    return op.Resize(
        array, None, None, sizes, mode="cubic", cubic_coeff_a=-0.5, antialias=1, exclude_outside=1
    )


@script(default_opset=op)
def tent(length: INT64, half: INT64):
    place = op.Range(0, length, 1)
    apart = op.Abs(op.Unsqueeze(place, [1]) - op.Unsqueeze(place, [0]))
    box = op.Cast(apart <= half, to=DOUBLE.dtype) / op.Cast(2 * half + 1, to=DOUBLE.dtype)
    return op.Cast(op.MatMul(box, box), to=FLOAT.dtype)


@script(default_opset=op)
def smooth(array, half: INT64):
    quarter = op.AveragePool(array, kernel_shape=[4, 4], strides=[4, 4], ceil_mode=1)
    height, width = op.Shape(quarter, start=2, end=3), op.Shape(quarter, start=3, end=4)
    down, across = tent(op.Squeeze(height), half), tent(op.Squeeze(width), half)
    return op.MatMul(op.MatMul(down, quarter), across)


@script(default_opset=op)
def surroundings(array, fov, weight, half: INT64):
    mean = smooth(array * fov, half) / weight
    whole = op.Resize(mean, None, [1.0, 1.0, 4.0, 4.0], mode="linear")
    return op.Slice(whole, [0, 0], op.Shape(array, start=2, end=4), [2, 3])


@script(default_opset=op)
def normalise_locally(image, fov):
    high = op.ReduceSum(op.ReduceMax(fov, [0, 1, 3], keepdims=0), keepdims=0)
    wide = op.ReduceSum(op.ReduceMax(fov, [0, 1, 2], keepdims=0), keepdims=0)
    half = op.Max(op.Cast(op.Round(op.Max(high, wide) / 120.0), to=INT64.dtype), 1)
    weight = op.Max(smooth(fov, half), 0.001)
    away = (image - surroundings(image, fov, weight, half)) * fov
    deviation = op.Sqrt(surroundings(away * away, fov, weight, half))
    return op.Clip(away / op.Max(deviation, 0.00392156862745098), -6.0, 6.0)


@script(default_opset=op)
def normalise_photograph(image, fov):
    area = op.ReduceSum(fov)
    away = (image - op.ReduceSum(image * fov, [2, 3]) / area) * fov
    deviation = op.Sqrt(op.ReduceSum(away * away, [2, 3]) / area)
    return away / op.Max(deviation, 0.00392156862745098)


@script(default_opset=op)
def green(colours):
    return op.Slice(colours, [1], [2], [1])


@script(default_opset=op)
def luminance(colours):
    """In Pillow's whole numbers."""
    weights = op.Constant(value_ints=[19595, 38470, 7471])
    parts = op.Cast(colours, to=INT64.dtype) * op.Reshape(weights, [1, 3, 1, 1])
    return op.Cast((op.ReduceSum(parts, [1]) + 32768) / 65536, to=UINT8.dtype)


@script(default_opset=op)
def rgb(colours):
    return op.Identity(colours)


SEEN = {"green": green, "luminance": luminance, "rgb": rgb}
NORMALISED = {"local": normalise_locally, "photograph": normalise_photograph}


def multiple_of(model: nn.Module) -> int:
    """What a network pads heights and widths to; given such ones, it need not."""
    return getattr(model, "multiple", 256)  # a UNet256 names none


def whole_graph(network: Network) -> onnx.ModelProto:
    """From a photograph and its FOV to its probability; the network is one node, OWN.Network."""
    preparation = network.preparation
    frame = preparation.frame(np.ones((64, 64), bool))
    margin = frame.margin
    least, multiple = preparation.patch_size, multiple_of(network.model)
    around = [0, 0, margin, margin] * 2
    seen, normalise = SEEN[preparation.channels], NORMALISED[preparation.normalisation]

    @script(default_opset=op)
    def retina(
        image: UINT8["height", "width", "colours"],
        fov: BOOL["height", "width"],
        views: INT64,
        fov_diameter: INT64,
    ) -> FLOAT["height", "width"]:
        # frame.frame_of: the box around the FOV, and its size once resampled
        number = op.Cast(fov, to=UINT8.dtype)
        rows = first_and_end(op.Cast(op.ReduceMax(number, [1], keepdims=0), to=BOOL.dtype))
        columns = first_and_end(op.Cast(op.ReduceMax(number, [0], keepdims=0), to=BOOL.dtype))
        start = op.Concat(op.Slice(rows, [0], [1]), op.Slice(columns, [0], [1]), axis=0)
        end = op.Concat(op.Slice(rows, [1], [2]), op.Slice(columns, [1], [2]), axis=0)
        native = end - start
        sides = op.Cast(native, to=DOUBLE.dtype)
        scale = op.Cast(fov_diameter, to=DOUBLE.dtype) / op.ReduceMax(sides, keepdims=0)
        size = op.Max(op.Cast(op.Round(sides * scale), to=INT64.dtype), 1)

        # Frame.view and Preparation.view
        crop = op.Slice(op.Slice(image, start, end, [0, 1]), [0], [3], [2])
        colours = op.Unsqueeze(op.Transpose(crop, perm=[2, 0, 1]), [0])
        small = op.Cast(seen(resize(colours, size)), to=FLOAT.dtype) / 255.0
        held = op.Cast(op.Slice(number, start, end, [0, 1]), to=DOUBLE.dtype)
        height, width = op.Slice(size, [0], [1]), op.Slice(size, [1], [2])
        inside = op.Cast(area_mean(area_mean(held, height), width) >= 0.5, to=FLOAT.dtype)
        black = op.Constant(value_ints=around)
        inside = op.Unsqueeze(inside, [0, 1])
        given = normalise(op.Pad(small, black), op.Pad(inside, black))

        # predict.average_patches, where one patch holds it all
        viewed = op.Shape(given, start=2, end=4)
        side = op.Max(op.ReduceMax(viewed), 2 * multiple, least)
        side = (side + multiple - 1) / multiple * multiple
        below = op.Concat([0, 0, 0, 0, 0, 0], side - viewed, axis=0)
        total = op.Slice(given * 0.0, [0], [1], [1])
        for view in range(views):
            turned = op.Concat(op.Mod(view / 2, [2]), op.Mod(view, [2]), axis=0)  # as FLIPS
            steps = 1 - 2 * turned
            beyond = steps * (viewed + 1)
            mirrored = op.Slice(given, -turned, beyond, [2, 3], steps)
            drawn = op.Slice(OWN.Network(op.Pad(mirrored, below)), [0, 0], viewed, [2, 3])
            total = total + op.Slice(drawn, -turned, beyond, [2, 3], steps)
        mean = total / op.Cast(views, to=FLOAT.dtype)

        # Frame.restore
        mean = op.Slice(mean, op.Constant(value_ints=around[2:4]), size + margin, [2, 3])
        back = op.Squeeze(op.Clip(resize(mean, native), 0.0, 1.0), [0, 1])
        back = op.Pad(back, op.Concat(start, op.Shape(fov) - end, axis=0))
        probability = back * op.Cast(fov, to=FLOAT.dtype)
        return probability

    return retina.to_model_proto()
