"""The notebooks of the tutorials run from their first cell to their last, in a kernel of their own."""

from pathlib import Path

import pytest

pytest.importorskip("ipykernel")
nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

NOTEBOOKS = sorted((Path(__file__).parents[2] / "docs" / "notebooks").glob("*.ipynb"))

pytestmark = pytest.mark.filterwarnings("ignore")  # of the client, about its event loop


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path):
    made = nbformat.read(path, as_version=4)
    nbformat.validate(made)
    if path.stem == "pretrained":
        pytest.importorskip("transformers")
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(made, timeout=300, resources=resources).execute()
    shown = [out for cell in made.cells if cell.cell_type == "code" for out in cell.outputs]
    assert shown
    assert not [out for out in shown if out.output_type == "error"]
    if path.stem == "first_pattern":
        assert any("<svg" in out.get("data", {}).get("text/html", "") for out in shown)
