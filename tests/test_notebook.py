"""`distail.run` in a real notebook kernel: a bar that moves, then the table and the picture."""

import re

import pytest

pytestmark = pytest.mark.integration

CELL = """
import distail
config = {
    "name": "notebook", "output": "run", "data": {"name": "digits", "imbalance_factor": 20},
    "teacher": None, "student": "resnet8", "method": "ce", "training": {"epochs": 2, "batch_size": 256},
    "trainer": {"device": "cpu"},
}
distail.run(config)
"""


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    client, _ = pytest.importorskip("nbclient"), pytest.importorskip("ipykernel")
    from nbformat.v4 import new_code_cell, new_notebook

    notebook = new_notebook(cells=[new_code_cell(CELL)])
    folder = str(tmp_path_factory.mktemp("notebook"))
    client.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": folder}}).execute()
    return notebook.cells[0].outputs


def test_the_bar_stands_at_its_end(outputs):
    bars = [output.data["text/html"] for output in outputs if output.output_type == "display_data"]
    assert len(bars) == 1  # drawn again in its place
    value, most = re.search(r'<progress value="(\d+)" max="(\d+)"', bars[0]).groups()
    assert value == most != "0"
    assert "student" in bars[0]
    assert "epoch 2/2" in bars[0]
    assert "loss" in bars[0]


def test_messages_are_plain_text(outputs):
    streams = {output.name: output.text for output in outputs if output.output_type == "stream"}
    assert "training images" in streams["stdout"]
    assert "training images" not in streams.get("stderr", "")


def test_the_result_is_a_table_and_a_picture(outputs):
    (result,) = (output.data for output in outputs if output.output_type == "execute_result")
    page = result["text/html"]
    assert "Tail third" in page
    assert "Balanced accuracy" in page
    assert page.count("<table") == page.count("</svg>") == 1
    assert "report.html" in page
    assert re.match(r"Result\('run', balanced accuracy \d", result["text/plain"])
