"""The notebooks of the tutorials run from their first cell to their last, in a kernel of their own."""

from pathlib import Path

import pytest

pytest.importorskip("ipykernel")
nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

NOTEBOOKS = sorted((Path(__file__).parents[2] / "docs" / "notebooks").glob("*.ipynb"))
NEEDED = {"pretrained": "transformers", "looking": "ipywidgets"}

pytestmark = pytest.mark.filterwarnings("ignore")  # of the client, about its event loop


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path):
    made = nbformat.read(path, as_version=4)
    nbformat.validate(made)
    if needed := NEEDED.get(path.stem):
        pytest.importorskip(needed)
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(made, timeout=300, resources=resources).execute()
    shown = [out for cell in made.cells if cell.cell_type == "code" for out in cell.outputs]
    assert shown
    assert not [out for out in shown if out.output_type == "error"]
    kinds = [out.get("data", {}) for out in shown]
    if path.stem in ("first_pattern", "looking"):
        assert any("<svg" in each.get("text/html", "") for each in kinds)
    if path.stem == "looking":
        assert any("application/vnd.jupyter.widget-view+json" in each for each in kinds)
