"""Tables of made results: what is escaped, what is missing, what the verdicts are."""

import csv
import io
from dataclasses import replace

import pytest

from distail.compare.content import difference_content
from distail.compare.metrics import metrics_of
from distail.compare.summary import verdict
from distail.compare.tables import csv_table, metric_table, to_latex, to_markdown, write_tables
from distail.evaluation.significance import Difference, verdict_of
from distail.report.numbers import format_metric, format_signed

METRICS = metrics_of(multi_label=False)


def figure(mean=None, deviation=None, interval=None, values=None):
    return {"values": values or {}, "mean": mean, "deviation": deviation, "interval": interval}


def content(**changes):
    own = {name: figure(41.25, 0.5, [40.0, 42.5], {"0": 41.0, "1": 41.5}) for name in METRICS}
    nothing = {name: figure() for name in METRICS}
    few = {**own, "groups.shots.few": figure()}
    difference = {
        "method": "a_b",
        "figure": "top1",
        "difference": -0.04,
        "interval": [-1.0, 0.9],
        "p": 0.0001,
        "p_corrected": 0.0002,
        "over": "seeds",
        "inside_noise": False,
        "seeds": 2,
        "verdict": "more than the noise",
    }
    runs = [{"method": "a_b", "seed": 0, "state": "finished", "problem": None}]
    runs += [{"method": "x", "seed": 0, "state": "failed", "problem": "50% & |more|"}]
    return {
        "name": "lt_100%",
        "class_counts": [500, 50, 30],
        "methods": ["a_b", "kd", "x"],
        "baseline": "kd",
        "runs": [*runs, {"method": "kd", "seed": 0, "state": "finished", "problem": None}],
        "figures": {"a_b": few, "kd": own, "x": nothing},
        "taus": {},
        "differences": [difference],
        "beyond_adjusting": [],
        "grid": None,
        "statements": ["x, seed 0, is failed: 50% & |more| <b>"],
        **changes,
    }


def test_latex_escapes_names_and_has_equal_columns():
    text = to_latex(content())
    assert r"a\_b" in text
    assert r"$\pm$" in text
    body = [line for line in text.splitlines() if not line.startswith("%")]
    assert not any(sign in line.replace(r"\_", "").replace(r"\%", "") for line in body for sign in "_%")
    for block in text.split(r"\begin{tabular}")[1:]:
        columns = len(block[1 : block.index("}")])
        rows = [line for line in block.splitlines() if line.endswith(r"\\")]
        assert rows
        assert {line.count(" & ") + 1 for line in rows} == {columns}


def test_what_an_earlier_call_wrote_beyond_adjusting_does_not_stay(tmp_path):
    beyond = {**content()["differences"][0], "against": "kd"}
    for found in ([beyond], []):
        write_tables(tmp_path, content(beyond_adjusting=found))
        assert (tmp_path / "beyond-adjusting.csv").exists() == bool(found)


def test_a_group_that_some_folds_alone_have_is_not_called_untested():
    changed = content()
    changed["figures"]["kd"] = {path: {**metric} for path, metric in changed["figures"]["kd"].items()}
    lacking = {"values": {}, "mean": None, "deviation": None, "interval": None, "not_in_every_fold": True}
    changed["figures"]["kd"]["groups.thirds.tail"] = lacking
    (row,) = [row for row in metric_table(changed, ["groups.thirds.tail"]).rows if row[0] == "kd"]
    assert row[-1] == "not in every fold"


def test_latex_comments_stay_one_line_whatever_a_problem_says():
    text = to_latex(content(statements=["x, seed 0, is failed: 2 problems:\n  - no file\r\n  - no \\classes"]))
    comments, _, tables = text.partition(r"\begin{tabular}")
    assert all(line.startswith("%") for line in comments.splitlines() if line)
    assert "% x, seed 0, is failed: 2 problems: - no file - no \\classes\n" in comments
    assert "no file" not in tables


def test_markdown_escapes_bars_and_tags():
    text = to_markdown(content())
    assert "50% & \\|more\\| &lt;b>" in text
    assert "| x | 0 | failed | failed" in text
    assert "| no such class |" in text
    row = r"| a\_b | Top-1 | 2 | 0.0 | not known |  | -1.0 to +0.9 | < 0.001 | more than the noise of seeds |"
    assert row.replace("<", "&lt;") in text


def test_a_group_without_test_images_is_told_from_one_without_classes():
    unmeasured = {label: {name: figure() for name in METRICS} for label in ("a_b", "kd", "x")}
    paths = ("top1", "groups.thirds.tail", "groups.shots.few")
    rows = metric_table(content(figures=unmeasured), paths).rows
    assert rows[0] == ["a_b", "1", "not measured", "no test image", "no such class"]
    assert rows[2] == ["x", "0", "failed", "failed", "failed"]
    rows = metric_table(content(figures=unmeasured, class_counts=[]), paths).rows
    assert rows[0] == ["a_b", "1", "not measured", "not measured", "not measured"]


def test_csv_leaves_empty_what_is_not_known():
    rows = {(row["method"], row["figure"]): row for row in csv.DictReader(io.StringIO(csv_table(content()).to_csv()))}
    assert rows["x", "top1"]["mean"] == rows["a_b", "groups.shots.few"]["mean"] == ""
    assert rows["a_b", "top1"]["seeds_p_corrected"] == "0.0002"
    assert rows["a_b", "top1"]["images_low"] == ""
    assert (rows["a_b", "top1"]["verdict"], rows["kd", "top1"]["verdict"]) == ("more than the noise of seeds", "")


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([], "not known"),
        ([("seeds", None, True)], "not known"),
        ([("seeds", None, True), ("test images", 0.01, False)], "more than the noise of test images"),
        ([("test images", 0.01, False), ("seeds", 0.01, False)], "more than the noise of test images and seeds"),
        (
            [("test images", 0.01, False), ("seeds", 0.2, True)],
            "more than the noise of test images; within the noise of seeds",
        ),
        ([("test images", 0.3, True), ("seeds", 0.2, True)], "within the noise of test images and seeds"),
    ],
)
def test_a_verdict_says_what_test_images_and_seeds_know(entries, expected):
    made = [Difference("a", "top1", 1.0, None, p, p, over, inside, seeds=5) for over, p, inside in entries]
    assert verdict([difference_content(replace(one, verdict=verdict_of(one, tests=15))) for one in made]) == expected


def test_numbers_never_show_a_negative_zero():
    assert (format_signed(-0.01), format_signed(0.04), format_signed(-0.06), format_metric(-0.01)) == (
        "0.0",
        "0.0",
        "-0.1",
        "0.0",
    )
