"""Run the notebooks in place with their defaults: the only way committed outputs are made.

What would differ between two runs (times, machine names, widget state) is left out, so that a
second run changes nothing.
"""

import os
import shutil
import sys
from pathlib import Path

import nbformat
import numpy as np
from nbclient import NotebookClient
from PIL import Image
from traitlets.config import Config

from retina_utils import images
from retina_utils.machine.runs import NOTEBOOKS

FOLDER = Path(__file__).parent.parent / "notebooks"


def refresh(path: Path) -> None:
    """Run one notebook from its own folder and write its outputs back, clean."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        config=Config({"KernelManager": {"transport_encryption": "auto"}}),
        coalesce_streams=True,
        timeout=None,
    )
    client.execute()
    notebook.metadata = {
        key: notebook.metadata[key]
        for key in ("kernelspec", "language_info")
        if key in notebook.metadata
    }
    notebook.metadata["language_info"] = {"name": "python"}
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
    nbformat.write(notebook, path)


def main() -> None:
    """Run those named, or all, and keep the README's picture."""
    os.environ["RETINA_QUIET"] = "1"
    shutil.rmtree(FOLDER.parent / "outputs" / "tiny", ignore_errors=True)
    for name in sys.argv[1:] or NOTEBOOKS:
        print(name, flush=True)
        refresh(FOLDER / f"{name}.ipynb")
    # The README's picture is a figure of the series, too.
    figure = FOLDER.parent / "outputs" / "tiny" / "figures" / "05_error_map.png"
    picture = Image.open(figure).convert("RGB")
    picture.thumbnail((1200, 1200))
    images.write_jpeg(FOLDER / "images" / "overview.jpg", np.asarray(picture))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nStopped. Not all outputs are anew: run it again.")
