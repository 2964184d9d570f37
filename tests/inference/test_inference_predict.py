"""`distail predict`: the answers of a run, for any files, and what it says of those that it cannot read."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path

import pytest

from distail.cli import main
from distail.inference import predict as module
from distail.inference.student import Prediction
from helpers.class_folders import folder_run

pytestmark = pytest.mark.integration


def predict(capsys, *arguments):
    capsys.readouterr()
    code = main(["predict", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def table(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_a_folder_is_answered_as_the_run_answered_it(capsys, finished, photos, monkeypatch):
    monkeypatch.setattr(module, "_LARGEST_BATCH", 7)  # several batches, the last one smaller
    code, out, err = predict(capsys, finished.folder, photos / "test")
    with (finished.folder / "predictions.csv").open(newline="") as file:
        expected = {str(photos / row["path"]): row["answer"] for row in csv.DictReader(file)}
    assert (code, err) == (0, "")
    assert {row["path"]: row["class"] for row in table(out)} == expected


def test_several_classes_in_both_formats(capsys, finished, photos, tmp_path):
    weights = finished.folder / "student.safetensors"
    images = sorted((photos / "test" / "one").iterdir())[:2]
    _, as_csv, _ = predict(capsys, weights, *images, "--top", 3)
    code, _, _ = predict(capsys, weights, *images, "--top", 3, "--json", "--output", tmp_path / "a.jsonl")
    assert code == 0
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    for row, line in zip(table(as_csv), lines, strict=True):
        ranked = [(row[f"class{k}"], float(row[f"probability{k}"])) for k in ("", "_2", "_3")]
        assert [(each["class"], each["probability"]) for each in line["top"]] == ranked
        assert (line["class"], line["probability"], line["path"]) == (*ranked[0], row["path"])
        assert sorted(ranked, key=lambda pair: -pair[1]) == ranked


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("as_json", [True, False])
def test_names_steer_no_terminal_and_stay_as_they_are_in_a_file(monkeypatch, tmp_path, as_json):
    name = "cat\x9b2J\x7f"
    answer = module.Answer(Path("\x1b]0;x.png"), Prediction(name, 1.0, ((name, 1.0),)))
    monkeypatch.setattr("sys.stdout", Terminal())
    module.write_answers([answer], None, as_json=as_json, top=1)
    assert sys.stdout.getvalue().replace("\n", "").isprintable()
    module.write_answers([answer], tmp_path / "out", as_json=as_json, top=1)
    text = (tmp_path / "out").read_text(encoding="utf-8")
    row = json.loads(text) if as_json else table(text)[0]
    assert (row["path"], row["class"]) == ("\x1b]0;x.png", name)


@pytest.mark.parametrize("suffix", ["txt", "csv"])
def test_unreadable_files_of_a_list_are_told_and_the_rest_is_done(capsys, finished, photos, suffix):
    (photos / "broken.png").write_bytes(b"junk")
    names = ["test/one/0.png", "broken.png", "missing.png", "test/two/1.png"]
    header = ["path"] if suffix == "csv" else []
    (photos / f"list.{suffix}").write_text("\n".join([*header, *names]) + "\n")
    code, out, err = predict(capsys, finished.folder, photos / f"list.{suffix}")
    (photos / "broken.png").unlink()
    assert code == 1
    assert [row["path"] for row in table(out)] == [str(photos / names[0]), str(photos / names[3])]
    assert "2 of 4 images" in err
    assert "broken.png: not an image" in err
    assert "missing.png: No such file" in err


def test_bad_input_is_told_at_once(capsys, finished, photos, tmp_path):
    (tmp_path / "list.csv").write_text("file\na.png\n")
    (tmp_path / "empty").mkdir()
    code, out, err = predict(capsys, finished.folder, "nowhere", tmp_path / "list.csv", tmp_path / "empty")
    assert (code, out) == (2, "")
    assert all(word in err for word in ("nowhere", "column path", "holds no image"))
    (tmp_path / "x.png").write_bytes(b"")
    code, _, err = predict(capsys, finished.folder, tmp_path / "x.png")
    assert (code, "the file is empty" in err) == (2, True)
    code, _, err = predict(capsys, finished.folder, photos, "--prior", tmp_path / "list.csv")
    assert (code, "class,share" in err) == (2, True)
    code, _, err = predict(capsys, finished.folder, photos, "--adjust", "-1")
    assert code == 2


def test_a_run_whose_figures_are_adjusted_says_how_to_answer_alike(capsys, tmp_path):
    run = folder_run(tmp_path / "run", method={"name": "ce", "adjust": 1.0}).folder
    with (run / "predictions.csv").open(newline="") as file:
        expected = [(row["answer"], float(row["probability"])) for row in csv.DictReader(file)]
    with (run / "predictions.csv").open(newline="") as file:
        paths = [str(tmp_path / "run-photos" / row["path"]) for row in csv.DictReader(file)]
    _, _, err = predict(capsys, run, *paths)
    assert "--adjust 1" in err
    _, out, err = predict(capsys, run, *paths, "--adjust", "1")
    assert "--adjust" not in err
    found = [(row["class"], float(row["probability"])) for row in table(out)]
    assert [name for name, _ in found] == [name for name, _ in expected]
    assert [p for _, p in found] == pytest.approx([p for _, p in expected], abs=1e-4)


def test_expected_shares_move_answers_towards_them(capsys, finished, photos, tmp_path):
    shares = {"zero": 1, "one": 1, "two": 1, "three": 1000}
    (tmp_path / "prior.json").write_text(json.dumps(shares))
    (tmp_path / "prior.csv").write_text("class,share\n" + "\n".join(f"{name},{n}" for name, n in shares.items()))
    plain = table(predict(capsys, finished.folder, photos / "test")[1])
    _, by_json, _ = predict(capsys, finished.folder, photos / "test", "--prior", tmp_path / "prior.json")
    _, by_csv, _ = predict(capsys, finished.folder, photos / "test", "--prior", tmp_path / "prior.csv")
    threes = [sum(row["class"] == "three" for row in rows) for rows in (plain, table(by_json))]
    assert by_json == by_csv
    assert threes[1] > threes[0]
