"""One experiment from its configuration to its result: checked, read, trained, evaluated, reported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

import torch

from distail import files
from distail.config.precision import Precisions, read_precision
from distail.config.schema import Experiment
from distail.data.prepare import PreparedData, prepare_data
from distail.data.sources.locate import files_state
from distail.errors import counted
from distail.evaluation.run_files import RunResult
from distail.file_lock import FolderLock
from distail.json_values import value_at
from distail.report.build import write_report
from distail.runner.checks import check, check_fits_data, check_memory, read_experiment
from distail.runner.context import RunContext
from distail.runner.identity import changed_data, changed_teacher, identity_of
from distail.runner.precision import select_run_device
from distail.runner.result import Result, final_evaluation
from distail.runner.run_folder import RunFolder
from distail.runner.stages import prepare_teacher, train_student, untrained_student
from distail.runner.training_notes import training_notes
from distail.runner.views import with_settled_views
from distail.training.device import RuntimeDevice
from distail.training.distributed import Processes, process_group
from distail.training.history import History
from distail.training.progress import Reporter, Silent, default_reporter
from distail.training.signals import stop_requests
from distail.training.threads import thread_count, threads
from distail.training.trackers import build_trackers


def run(config: Experiment | Mapping[str, Any] | str | Path, *, reporter: Reporter | None = None) -> Result:
    """Run an experiment, or resume it; a finished run returns at once.

    The run's folder (`output`, by default `runs/<name>-seed<seed>`) then holds `result.json`, the predictions, the
    weights of student and teacher, `metrics.jsonl`, the trackers' files, checkpoints and `report.html`.

    Args:
        config: an `Experiment`, a mapping with its keys, or the path of a YAML file.
        reporter: receives the progress; default: a progress bar or plain lines on standard error.

    Raises:
        DistailError: the experiment, the data or a file cannot be used; raised before any training.
        TrainingError: training had to stop.
    """
    experiment = read_experiment(config)
    folder, trainer = RunFolder(experiment.output), experiment.trainer
    with (
        stop_requests() as request,
        request.at_once(),
        process_group(trainer.device, trainer.process_timeout_minutes) as processes,
        ExitStack() as held,
    ):
        progress: Reporter = (reporter or default_reporter(name=experiment.name)) if processes.is_main else Silent()
        result = processes.broadcast_from_main(lambda: folder.finished(experiment, progress.message))
        if result is not None:
            if processes.is_main:
                _say_what_changed(experiment, result, progress)
        else:
            processes.broadcast_from_main(lambda: check(experiment, processes))

            lock: FolderLock | None = None  # of the main process, which alone writes

            def begin() -> Experiment | None:
                nonlocal lock
                lock = held.enter_context(folder.locked(progress.message))
                folder.remove_temporary_files()
                return folder.stored_experiment(experiment)

            stored = processes.broadcast_from_main(begin)
            require_folder = partial(folder.require, lock)
            result = _run_stages(experiment, stored, folder, require_folder, progress, processes)
            if processes.is_main:
                folder.report.unlink(missing_ok=True)  # of a run that was looked at before it was finished
        if processes.is_main:
            _write_page(folder, progress)
        return Result(folder.path, result)


def _say_what_changed(experiment: Experiment, result: RunResult, reporter: Reporter) -> None:
    identity = result.get("identity")
    if identity is None:
        return
    if changed := [*changed_data(experiment, identity), *changed_teacher(experiment, identity)]:
        reporter.message(
            f"this run was finished earlier, and today it would have {' and '.join(changed)}. The results are those of "
            "then; choose another output to train again"
        )
    began, root = value_at(identity, "experiment.data.root"), experiment.data.root
    if root is not None and str(root) != began and files_state(experiment.data) is None:
        reporter.message(
            f"this run was finished earlier, with data.root: {began}; the results are those of then, and nothing was "
            f"read at {str(root)!r}"
        )


def _run_stages(
    experiment: Experiment,
    stored: Experiment | None,
    folder: RunFolder,
    require_folder: Callable[[], None],
    reporter: Reporter,
    processes: Processes,
) -> RunResult:
    """The content of `result.json`; `stored` is the experiment as it began, where it has begun before."""
    data_files = files_state(experiment.data)
    data = processes.local_main_first(lambda: read_images(experiment, folder, reporter, processes))
    check_memory(experiment, data.class_counts)
    check_fits_data(experiment, data.train)
    runtime, formats, notes = select_run_device(experiment, stored, data, processes)
    experiment, views_notes = with_settled_views(experiment, stored, data, formats)
    count = select_threads(experiment, stored, runtime, reporter)
    settled = _as_begun(experiment, formats, count)
    identity = identity_of(settled, data, data_files)
    with threads(count), closing(_open_history(experiment, folder, reporter, require_folder)) as history:
        context = RunContext(
            experiment, folder, data, runtime, history, reporter, identity, require_folder, formats=formats
        )
        context.note(*training_notes(experiment, data), *notes, *views_notes)
        # First, though it is trained last: what is wrong with it must not wait for a teacher of many hours.
        student = untrained_student(context)
        begin = partial(processes.broadcast_from_main, lambda: files.write_text(folder.config, settled.to_yaml()))
        # A given teacher may be refused, after which the folder is still free; one that is trained here goes on in it.
        trains = experiment.teacher is None or experiment.teacher.trained_here
        if stored is None and trains:
            begin()
        teacher = prepare_teacher(context)
        if stored is None and not trains:
            begin()
        trained = train_student(context, student, teacher)
        # Only now is it certain that data elsewhere are the same.
        if stored is not None and stored.data.root != experiment.data.root:
            moved = stored.model_copy(update={"data": experiment.data})
            processes.broadcast_from_main(lambda: files.write_text(folder.config, moved.to_yaml()))
        return final_evaluation(context, teacher, trained)


def read_images(experiment: Experiment, folder: RunFolder, reporter: Reporter, processes: Processes) -> PreparedData:
    """The data, and all that there is to tell of it: how much of it there is, then what is odd."""
    data = prepare_data(experiment.data, seed=experiment.seed)
    counts = data.class_counts
    reporter.message(
        f"{experiment.data.name}: {len(data.train):,} training {data.train.noun}s of {len(counts)} classes "
        f"({max(counts):,} in the largest, {min(counts):,} in the smallest), "
        f"{len(data.validation) if data.validation else 0:,} for validation, {len(data.test):,} for the test; "
        f"subset {data.subset_sha256[:12]}"
    )
    for note in data.notes:
        reporter.message(note)
    if data.skipped:
        if processes.is_main:
            files.write_text(folder.skipped, "\n".join(data.skipped) + "\n")
        reporter.message(
            f"skipped {counted(len(data.skipped), 'unreadable image')}, such as {data.skipped[0]}; "
            f"the run lists all in {folder.skipped}"
        )
    return data


def _open_history(
    experiment: Experiment, folder: RunFolder, reporter: Reporter, before_write: Callable[[], None]
) -> History:
    trackers = build_trackers(
        experiment.trainer.trackers,
        f"{experiment.name}-seed{experiment.seed}",
        folder.path,
        experiment.model_dump(mode="json"),
        reporter.message,
    )
    return History(folder.path, trackers, before_write)


def select_threads(
    experiment: Experiment, stored: Experiment | None, runtime: RuntimeDevice, reporter: Reporter
) -> int:
    """Threads to compute with; as many as when the run began, unless others are asked for."""
    asked = experiment.trainer.threads
    if runtime.device.type != "cpu" or runtime.processes.size > 1:
        return torch.get_num_threads()
    count, remark = thread_count(stored.trainer.threads if stored and asked == "auto" else asked)
    if remark:
        reporter.message(remark)
    return count


def _as_begun(experiment: Experiment, formats: Precisions, count: int) -> Experiment:
    """The experiment with what `auto` stood for, which decides the last digits of its numbers."""
    trainer = experiment.trainer.model_copy(update={"precision": read_precision(formats), "threads": count})
    return experiment.model_copy(update={"trainer": trainer})


def _write_page(folder: RunFolder, reporter: Reporter) -> None:
    if folder.report.is_file():
        return
    try:
        files.remove_stale_temporaries(folder.path)  # of a process that was killed while it wrote the page
        write_report(folder.report, [folder.path])
    except OSError as error:
        reporter.message(f"{folder.report} could not be written ({error.strerror}); the run itself is complete")
