"""A comparison on examples of several classes: by mean average precision, without rows that adjusting would make."""

from __future__ import annotations

import pytest
import yaml

from distail.compare.compare import compare
from distail.compare.engines import ENGINES
from distail.compare.metrics import main_metrics, metrics_of
from helpers.comparison_cases import InProcess, Quiet
from helpers.multi_label_data import experiment, save_arrays

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workplace")
    config = {**experiment(folder, save_arrays(folder, rows=1200)), "output": None}
    (folder / "several.yaml").write_text(yaml.safe_dump(config))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setitem(ENGINES, "local", InProcess)
        yield compare(
            "several.yaml",
            ["training.epochs=2"],
            methods="ce,kd,distail",
            seeds="0,1",
            reporter=Quiet(),
        )


def test_it_is_by_mean_average_precision(finished):
    content = finished.content
    assert list(content["figures"]) == ["teacher", "ce", "kd", "distail"]
    assert all(set(own) == set(metrics_of(multi_label=True)) for own in content["figures"].values())
    tested = {one["figure"] for one in content["differences"] if one["p_corrected"] is not None}
    assert tested == set(main_metrics(multi_label=True))
    over_images = [one for one in content["differences"] if one["over"] == "test images"]
    assert any(one["interval"] is not None for one in over_images if one["figure"] == "mean_average_precision")
    assert not content["beyond_adjusting"]
    assert "Tested are mAP and Tail third" in " ".join(content["statements"])


def test_tables_and_page_speak_of_it(finished):
    table = (finished.folder / "tables" / "comparison.md").read_text()
    page = (finished.folder / "report.html").read_text()
    for text in (table, page):
        assert "mAP" in text
        assert "Top-1" not in text
    assert "Average precision against class size" in page
