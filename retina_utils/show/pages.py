"""What the pages here are written with: templates, and pictures as text."""

import base64
import io
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

HERE = Path(__file__).parent
TEMPLATES = Environment(
    loader=FileSystemLoader(HERE),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
# Style sheets and scripts go into a page as they are.
TEMPLATES.globals["text_of"] = lambda name: Markup((HERE / name).read_text(encoding="utf-8"))
TEMPLATES.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}


def data_uri(picture: np.ndarray, kind: str, quality: int = 85) -> str:
    """A (H, W[, 3]) uint8 or (H, W) bool picture as text in a page: "JPEG", or "PNG" as it is."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, kind, optimize=True, quality=quality)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
