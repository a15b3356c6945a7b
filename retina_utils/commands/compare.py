"""Two finished runs, compared on their test photographs: a table, and the differences drawn."""

from pathlib import Path

from retina_utils.measures.compare import compare
from retina_utils.show import figures
from retina_utils.show.tables import Table


def compare_runs(a: str, b: str, outputs: str = "outputs") -> Path:
    """Print the table, and draw the differences into B's folder; gives the figure's place."""
    found, run = compare(Path(outputs) / a, Path(outputs) / b), Path(outputs) / b
    print(Table(found.rows, caption=found.words))
    name = f"compared_with_{found.runs[0]}"
    figures.keep_in(run)(figures.plot_differences(found), name, found.words)
    return run / "figures" / f"{name}.png"
