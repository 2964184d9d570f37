"""A run's folder under adversity: locks, damage to a finished run, what kills left behind, and no right to write."""

import errno
import json
import os
import shutil
import stat
import subprocess
import sys

import pytest

import distail
from distail import file_lock, files
from distail.errors import CheckpointError, ConfigError
from distail.runner.run_folder import RunFolder
from distail.training.signals import Interrupted
from helpers.whole_runs import Killed, Recorder


def experiment(folder, **changes):
    return {
        "name": "try",
        "output": str(folder),
        "data": {"name": "digits", "imbalance_factor": 20, "validation": 0},
        "teacher": {"model": "same", "training": {"epochs": 1}},
        "student": "resnet8",
        "method": "kd",
        "training": {"epochs": 1, "batch_size": 256, "learning_rate": 0.05},
        "trainer": {"device": "cpu"},
        **changes,
    }


def run(folder, reporter=None, **changes):
    return distail.run(experiment(folder, **changes), reporter=reporter or Recorder())


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return run(tmp_path_factory.mktemp("original") / "run")


@pytest.fixture
def finished(original, tmp_path):
    """A finished run to spoil."""
    folder = tmp_path / "moved here"
    shutil.copytree(original.folder, folder)
    return RunFolder(folder)


@pytest.mark.parametrize("name", ["comparison.yaml", "search.yaml"])
def test_a_folder_of_another_kind_is_not_taken_over(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(ConfigError, match=name):
        run(tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.name != ".lock"] == [name]


def files_of(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_finished_run_that_was_moved_is_still_finished(finished, original):
    recorder = Recorder()
    assert run(finished.path, recorder).figures == original.figures
    assert recorder.messages == recorder.started == []


def test_a_finished_run_is_read_without_lock_without_teacher_file_and_without_a_right_to_write(original, monkeypatch):
    def refused(*arguments, **options):
        raise OSError(errno.EROFS, "Read-only file system", "somewhere")

    before = files_of(original.folder)
    monkeypatch.setattr(RunFolder, "locked", refused)
    monkeypatch.setattr(files, "write_bytes", refused)
    assert run(original.folder).figures == original.figures
    assert files_of(original.folder) == before


@pytest.mark.skipif(os.geteuid() == 0 and not os.path.exists("/usr/bin/setpriv"), reason="nobody to become")
@pytest.mark.integration
def test_a_read_only_folder_of_a_finished_run_prints_its_figures(finished, tmp_path):
    """As another user than root where there is a way, since root may write everywhere."""
    finished.report.unlink()
    for path in (finished.path, *finished.path.rglob("*")):
        path.chmod(stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH | (stat.S_IXUSR | stat.S_IXOTH) * path.is_dir())
    for path in (tmp_path, *tmp_path.parents[:3]):
        path.chmod(path.stat().st_mode | stat.S_IXOTH | stat.S_IROTH)
    (tmp_path / "c.yaml").write_text(json.dumps(experiment(finished.path)))
    (tmp_path / "c.yaml").chmod(0o644)
    command = [sys.executable, "-m", "distail", "run", str(tmp_path / "c.yaml")]
    if os.geteuid() == 0:
        command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *command]
        if subprocess.run([*command[:4], sys.executable, "-c", "import distail, torch.version"], cwd="/").returncode:
            pytest.skip("nobody may not read this Python")
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "Tail third" in done.stdout
    assert "report.html could not be written (Permission denied); the run itself is complete" in done.stderr


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("result.json", b'{"schema', "cannot be read"),
        ("result.json", b"[]", "cannot be read"),
        ("predictions.safetensors", None, "there are no predictions"),
        ("predictions.safetensors", b"half", "cannot be read as safetensors"),
        ("student.safetensors", None, "does not exist"),
        ("student.safetensors", b"half", "damaged"),
        ("teacher.safetensors", None, "does not exist"),
        ("teacher.safetensors", b"half", "damaged"),
        ("result.json", b'{"schema_version": 1}', "no usable class_counts"),
    ],
)
def test_what_a_finished_run_lost_comes_back_from_its_checkpoint(finished, original, name, content, said):
    path = finished.path / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    recorder = Recorder()
    result = run(finished.path, recorder)
    assert said in recorder.messages[0]
    assert "is finished again from its checkpoint" in recorder.messages[0]
    assert recorder.started == [("teacher", 2), ("student", 2)]
    assert (result.student, result.teacher) == (original.student, original.teacher)
    assert result.figures["timing"] == original.figures["timing"]
    for each in ("predictions.safetensors", "student.safetensors", "teacher.safetensors"):
        assert (finished.path / each).read_bytes() == (original.folder / each).read_bytes()


def test_without_checkpoints_what_is_lost_is_told_and_nothing_is_trained_again(finished, original):
    shutil.rmtree(finished.path / "checkpoints")
    finished.predictions.unlink()
    recorder = Recorder()
    assert run(finished.path, recorder).figures == original.figures
    assert "there are no predictions" in recorder.messages[0]
    assert recorder.started == []
    finished.result.write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read"):
        run(finished.path)


def test_a_teacher_that_is_lost_with_its_checkpoints_is_told_and_not_trained_again(finished, original):
    shutil.rmtree(finished.checkpoints("teacher"))
    finished.weights("teacher").unlink()
    recorder = Recorder()
    assert run(finished.path, recorder).figures == original.figures
    assert "teacher.safetensors' does not exist" in recorder.messages[0]
    assert recorder.started == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"class_counts": [1, 2]}, r"no usable student\.test and teacher\.test"),
        ({"teacher": {}}, r"no usable teacher\.test"),
        ({"student": None}, r"no usable student\.test"),
    ],
)
def test_a_result_without_usable_figures_is_told_by_every_reader(finished, changes, said):
    shutil.rmtree(finished.path / "checkpoints")
    figures = json.loads(finished.result.read_text())
    finished.result.write_text(json.dumps({**figures, **changes}))
    for read in (lambda: run(finished.path), finished.stored_result):
        with pytest.raises(CheckpointError, match=said):
            read()


def test_a_result_of_another_version_is_never_written_over(finished):
    figures = json.loads(finished.result.read_text())
    finished.result.write_text(json.dumps({**figures, "schema_version": 99}))
    with pytest.raises(CheckpointError, match="not a result of this version"):
        run(finished.path)
    assert json.loads(finished.result.read_text())["schema_version"] == 99


def test_a_damaged_teacher_file_is_written_again_when_the_run_goes_on(finished, original):
    finished.result.unlink()
    finished.weights("teacher").write_bytes(b"half")
    run(finished.path)
    name = "teacher.safetensors"
    assert (finished.path / name).read_bytes() == (original.folder / name).read_bytes()


def test_a_page_of_the_unfinished_run_gives_way_to_that_of_the_finished_one(finished):
    finished.result.unlink()
    finished.report.write_text("This run is not finished")
    run(finished.path)
    assert "This run is not finished" not in finished.report.read_text()


def test_a_page_that_cannot_be_written_does_not_spoil_the_run_and_is_written_later(finished, original):
    finished.report.unlink()
    finished.report.mkdir()
    recorder = Recorder()
    assert run(finished.path, recorder).figures == original.figures
    assert "report.html could not be written (Is a directory)" in recorder.messages[0]
    finished.report.rmdir()
    run(finished.path)
    assert finished.report.is_file()


@pytest.mark.parametrize("left", ["result.json", "checkpoints"])
def test_a_run_whose_configuration_is_gone_is_refused(finished, left):
    for path in list(finished.path.iterdir()):
        if path.name != left:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(ConfigError, match=rf"holds {left} of a run, but not its config\.yaml"):
        run(finished.path)


def test_a_configuration_alone_is_a_run_that_has_not_begun(finished, original):
    for path in list(finished.path.iterdir()):
        if path != finished.config:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert run(finished.path).student == original.student


def test_what_killed_writers_left_is_removed_and_nothing_else(finished):
    finished.result.unlink()
    student = finished.checkpoints("student")
    stale = [
        finished.path / ".result.json.123.tmp",
        student / ".step-00000001.safetensors.99999.tmp",
        student / "memory" / ".step-00000001.safetensors.5.tmp",
        finished.path / ".teacher-views.ab_3d.tmp",
    ]
    kept = [finished.path / "notes.tmp", finished.path / ".notes.txt", finished.path / "mine" / ".x.1.tmp"]
    for path in (*stale, *kept):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("left")
    run(finished.path)
    assert [path for path in stale if path.exists()] == []
    assert all(path.exists() for path in kept)


def test_a_stopped_run_goes_on_when_its_teacher_file_has_been_moved_away(original, tmp_path):
    weights = tmp_path / "teacher.safetensors"
    shutil.copy(original.folder / "teacher.safetensors", weights)
    teacher = {"model": "same", "checkpoint": str(weights)}
    whole = run(tmp_path / "run", teacher=teacher)
    weights.unlink()
    assert run(tmp_path / "run", teacher=teacher).figures == whole.figures
    (tmp_path / "run" / "result.json").unlink()
    assert run(tmp_path / "run", teacher=teacher).student == whole.student


@pytest.mark.parametrize("key", ["checkpoint", "weights"])
def test_a_begun_student_goes_on_when_the_file_it_began_with_has_been_moved_away(original, tmp_path, key):
    weights = tmp_path / "student.safetensors"
    shutil.copy(original.folder / "student.safetensors", weights)
    model = {"name": "resnet8", **({"weights": str(weights)} if key == "weights" else {})}
    student = {"model": model, **({"checkpoint": str(weights)} if key == "checkpoint" else {})}
    options = {"student": student, "teacher": None, "method": "ce", "training": {"epochs": 2, "batch_size": 256}}
    whole = run(tmp_path / "whole", **options)
    with pytest.raises(Interrupted):
        run(tmp_path / "run", Killed("student", 1), **options)
    weights.unlink()
    with pytest.raises(ConfigError, match=rf"student\..*{key}: no file '.*student.safetensors'"):
        run(tmp_path / "another", **options)
    shutil.copytree(tmp_path / "run", tmp_path / "spoilt")
    assert run(tmp_path / "run", **options).student == whole.student
    for path in (tmp_path / "spoilt" / "checkpoints" / "student").glob("*.safetensors"):
        path.write_bytes(b"half")
    with pytest.raises(CheckpointError, match=r"no checkpoint is left to resume from, .*student.safe.* is missing"):
        run(tmp_path / "spoilt", **options)


def test_a_trained_teacher_goes_on_when_the_weights_it_began_with_have_been_moved_away(original, tmp_path):
    weights = tmp_path / "some.safetensors"
    shutil.copy(original.folder / "student.safetensors", weights)
    teacher = {"model": {"name": "resnet8", "weights": str(weights)}, "training": {"epochs": 2}}
    whole = run(tmp_path / "whole", teacher=teacher)
    with pytest.raises(Interrupted):
        run(tmp_path / "run", Killed("teacher", 1), teacher=teacher)
    weights.unlink()
    resumed = run(tmp_path / "run", teacher=teacher)
    assert (resumed.student, resumed.teacher) == (whole.student, whole.teacher)


def test_a_folder_in_use_says_by_whom(tmp_path):
    folder = RunFolder(tmp_path / "run")
    with folder.locked(), pytest.raises(ConfigError, match=rf"in use by process {os.getpid()} on "):
        run(tmp_path / "run")


def test_a_file_system_without_locks_is_told_and_used(tmp_path, monkeypatch):
    def no_locks(descriptor, blocking):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(file_lock, "lock_descriptor", no_locks)
    warnings = []
    with RunFolder(tmp_path / "run").locked(warnings.append):
        pass
    assert "has no locks (No locks available)" in warnings[0]


def test_an_output_that_is_a_file_is_named_as_such(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(ConfigError, match="is a file; expected a folder"):
        run(tmp_path / "run")
