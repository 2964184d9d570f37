"""`distail export`: a run's student as files for devices, each judged beside the student that was trained.

Shapes: N images, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor

from distail import files
from distail._version import __version__
from distail.config.schema import Experiment
from distail.data.dataset import Examples
from distail.data.prepare import PreparedData, prepare_data
from distail.errors import CheckpointError, ConfigError, IncompleteError, Problems, counted, listed, unknown_name
from distail.evaluation.groups import TAIL, thirds
from distail.evaluation.headline import HEADLINE_WORDS, headline_path
from distail.evaluation.metrics import MetricValues, evaluate_predictions
from distail.export.calibration import balanced_rows, raw_batches
from distail.export.formats import FORMATS, check_installed, written
from distail.export.graph import INPUTS, Input, Signature
from distail.export.int8 import quantize
from distail.export.measure import BATCHES, Task, measure
from distail.export.parity import Parity, given_as, logits_of, parity, tail_loss
from distail.export.runtimes import RUNTIMES, open_onnx
from distail.inference.student import Student, adjusted_student, adjustment_notes, load_student
from distail.inference.thresholds import read_threshold
from distail.latency import Latency
from distail.models.array_description import ArrayDescription
from distail.models.description import Description
from distail.runner.identity import other_images
from distail.runner.run_folder import RunFolder
from distail.training.progress import Reporter, Silent

LOST_TOO_MUCH = 3
"""The exit code where the tail of an exported file loses more than allowed, or a float file answers otherwise."""
_SEARCH_IMAGES = 2048


@dataclass(frozen=True)
class Options:
    """What is asked for; `batch` None leaves the batch open."""

    formats: tuple[str, ...] = ("onnx",)
    int8: bool = False
    batch: int | None = None
    input: Input = "uint8"
    adjust: float | None = None
    prior: Path | None = None
    max_tail_loss: float = 1.0
    threshold: float | Mapping[str, float] | None = None
    """From which probability on an example has a class, where it may have several."""
    seconds: float = 1.0
    """How long each batch is timed."""


class Cost(TypedDict):
    """Time and memory of a file; `failed` says why they could not be measured."""

    latency: list[Latency]
    peak_mb: float | None
    failed: str | None


class FileContent(Cost):
    """One file of `export.json`; `parity` is None of the student itself."""

    format: str
    file: str
    bytes: int
    float_layers: list[str] | None
    test: MetricValues
    parity: Parity | None


class ExportContent(TypedDict):
    """`export.json`: the classes in the order of the outputs; the student as PyTorch runs it, then each file.

    `images` counts the test images, or what else the data holds, which `noun` names. `thresholds` are of a student of
    several classes per image, one per class. `notes` are sentences for the user: how it is adjusted, or that the data
    have changed since it was trained.
    """

    schema_version: int
    run: str
    version: str
    class_names: list[str]
    images: int
    noun: str
    adjusted: bool
    notes: list[str]
    thresholds: list[float] | None
    max_tail_loss: float
    files: list[FileContent]


def read_options(
    formats: str,
    int8: bool,
    batch: str,
    given: str,
    adjust: float | None,
    prior: Path | None,
    max_tail_loss: float,
    threshold: str | None = None,
) -> Options:
    """Options of the command line.

    Raises:
        ConfigError: all that is wrong with them.
    """
    problems = Problems()
    names = tuple(dict.fromkeys(name.strip() for name in formats.split(",") if name.strip()))
    for name in names:
        if name in FORMATS:
            problems.attempt(lambda name=name: check_installed(name))  # type: ignore[misc]
        else:
            problems.add(f"--format: {unknown_name('format', name, FORMATS)}")
    if not names:
        problems.add(f"--format {formats!r} names none. Valid: {', '.join(FORMATS)}")
    if int8 and "onnx" not in names:
        problems.add("--int8 needs the format onnx; add it to --format")
    if given not in INPUTS:
        problems.add(f"--input: {unknown_name('input', given, INPUTS)}")
    if batch != "dynamic" and not (batch.isdecimal() and int(batch) >= 1):
        problems.add(f"--batch {batch!r}: expected dynamic, or a whole number of at least 1")
    if not max_tail_loss >= 0:
        problems.add(f"--max-tail-loss {max_tail_loss:g}: expected points of 0 or above")
    reached = None if threshold is None else problems.attempt(lambda: read_threshold(threshold))
    problems.stop("nothing is exported")
    size = None if batch == "dynamic" else int(batch)
    kind: Input = "float" if given == "float" else "uint8"
    return Options(names, int8, size, kind, adjust, prior, max_tail_loss, reached)


def export(
    run: Path,
    options: Options,
    overrides: Sequence[str] = (),
    output: Path | None = None,
    reporter: Reporter | None = None,
) -> tuple[Path, ExportContent]:
    """Write the files, judge and time them, and write `export.json` beside them; the folder, and what it holds.

    Args:
        run: the folder of a finished run.
        overrides: changes of its configuration, such as `data.root=/data` where the images lie elsewhere now.
        output: by default `export` in the run's folder, which the run's page shows.
        reporter: told of what takes long.

    Raises:
        DistailError: the run, its data or the options cannot be used, or the network cannot be exported.
    """
    reporter, folder = reporter or Silent(), output or run / "export"
    experiment = _experiment(RunFolder(run), overrides)
    student = adjusted_student(load_student(run), options.adjust, options.prior)
    if options.threshold is not None:
        student = student.with_thresholds(options.threshold)
    reporter.message(f"{experiment.data.name}: reading the data")
    data = prepare_data(experiment.data, seed=experiment.seed)
    if data.class_names != student.class_names:
        raise CheckpointError(f"{run}: the classes of the data differ from those of the student, or their order does")
    if isinstance(student.description, ArrayDescription) and data.encoding != student.description.columns:
        raise CheckpointError(f"{run}: the encoding of the table's columns differs from that in the student's file")
    notes = [*adjustment_notes(student, run, options.adjust, options.prior), *_other_data(RunFolder(run), data)]
    for note in notes:
        reporter.message(note)
    judge = _Judge(student, data, reporter, options.seconds)
    found = [judge.student(run)]
    folder.mkdir(parents=True, exist_ok=True)
    for name in options.formats:
        form = FORMATS[name]
        signature = _signature(student, options, form.any_size)
        path = folder / f"student{form.suffix}"
        reporter.message(f"writing {path}")
        written(name, student, signature, path)
        found.append(judge.file(name, name, path, signature))
        if name == "onnx" and options.int8:
            small = path.with_name("student-int8.onnx")
            kept = judge.quantize(path, small, signature, options.max_tail_loss)
            found.append({**judge.file("onnx-int8", name, small, signature), "float_layers": list(kept)})
    content: ExportContent = {
        "schema_version": 1,
        "run": str(run),
        "version": __version__,
        "class_names": list(student.class_names),
        "images": len(data.test),
        "noun": data.test.noun,
        "adjusted": bool(student.offset.any()),
        "notes": notes,
        "thresholds": None if student.thresholds is None else list(student.thresholds),
        "max_tail_loss": options.max_tail_loss,
        "files": found,
    }
    files.write_json(folder / "export.json", content)
    return folder, content


def raise_if_lost(content: ExportContent) -> None:
    """Let pass files that lose no more than allowed.

    Raises:
        IncompleteError: with the code 3; a file in int8 loses more of the tail, or a float file answers otherwise.
    """
    problems = []
    for each in content["files"]:
        found = each["parity"]
        if found is None:
            continue
        lost = -found["differences"].get(TAIL, {"difference": 0.0})["difference"]
        if lost > content["max_tail_loss"]:
            decides = headline_path(found["test"])
            whole = f"{HEADLINE_WORDS[decides]} {found['differences'][decides]['difference']:+.2f}"
            allowed = f"more than --max-tail-loss {content['max_tail_loss']:g} allows"
            problems.append(
                f"{each['file']}: the tail third loses {lost:.2f} points, {whole}, {allowed}; {_kept(each)}"
            )
        elif each["float_layers"] is None and found["equal_answers"] < 100:
            problems.append(
                f"{each['file']}: {100 - found['equal_answers']:.2f} % of the predictions differ beyond ties"
            )
    if problems:
        raise IncompleteError(listed(problems, "the files are written, but lose too much:"), LOST_TOO_MUCH)


def _kept(each: FileContent) -> str:
    layers = each["float_layers"]
    if layers is None:
        return "no layer is in int8"
    return f"{counted(len(layers), 'layer')} stayed in float" + (f" ({', '.join(layers)})" if layers else "")


def _experiment(run: RunFolder, overrides: Sequence[str]) -> Experiment:
    if not run.config.is_file() or run.stored_result() is None:
        raise ConfigError(
            f"{str(run.path)!r} is not the folder of a finished run: it has no config.yaml or no result.json. "
            "Create or finish one with `distail run CONFIG`."
        )
    return Experiment.from_yaml(run.config, overrides)


def _other_data(run: RunFolder, data: PreparedData) -> list[str]:
    changed = other_images(run.stored_result(), data)
    told = " and ".join(changed)
    return [f"{run.path}: the metrics are of current data, which are not those of the run: {told}"] if changed else []


def _signature(student: Student, options: Options, any_size: bool) -> Signature:
    batch = options.batch or (None if any_size else 1)
    if isinstance(student.description, ArrayDescription):
        return Signature("array", batch, False)
    return Signature(options.input, batch, any_size)


def _one_input(told: Description | ArrayDescription, signature: Signature) -> tuple[tuple[int, ...], str]:
    """Shape and type of one example as a file takes it."""
    if isinstance(told, ArrayDescription):
        return told.input_shape, told.input_type
    if signature.input == "uint8":
        return (told.height, told.width, told.in_channels), "uint8"
    return (told.in_channels, told.height, told.width), "float32"


class _Judge:
    """The float student's answers on the test images, beside which each file is put."""

    def __init__(self, student: Student, data: PreparedData, reporter: Reporter, seconds: float) -> None:
        self._student, self._data, self._reporter, self._seconds = student, data, reporter, seconds
        self._logits_NC = self._student_logits(data.test)

    def student(self, run: Path) -> FileContent:
        weights = RunFolder(run).weights("student")
        signature = _signature(self._student, Options(), True)
        return {
            "format": "pytorch",
            "file": weights.name,
            "bytes": weights.stat().st_size,
            "float_layers": None,
            "test": evaluate_predictions(self._logits_NC, self._data.test.labels, self._data.class_counts),
            "parity": None,
            **self._measured("student", run, signature),
        }

    def file(self, name: str, runtime: str, path: Path, signature: Signature) -> FileContent:
        self._reporter.message(
            f"{path.name}: {len(self._data.test):,} test {self._data.test.noun}s, then latency and memory"
        )
        logits_NC = logits_of(RUNTIMES[runtime](path, 0), self._data.test, signature)
        labels, counts = self._data.test.labels, self._data.class_counts
        found = parity(logits_NC, self._logits_NC, labels, counts, self._student.thresholds)
        return {
            "format": name,
            "file": path.name,
            "bytes": path.stat().st_size,
            "float_layers": None,
            "test": found["test"],
            "parity": found,
            **self._measured(runtime, path, signature),
        }

    def quantize(self, path: Path, small: Path, signature: Signature, most: float) -> tuple[str, ...]:
        """Write a file in int8; which layers stayed in float."""
        data, classes = self._data, len(self._data.class_names)
        chosen = data.train.subset(balanced_rows(data.train.labels, classes))
        calibration = [given_as(levels, signature) for levels in raw_batches(chosen, signature.batch or 64)]
        if signature.batch:  # the last one may be shorter
            calibration[-1] = np.resize(calibration[-1], (signature.batch, *calibration[-1].shape[1:]))
        judged = [data.train.subset(balanced_rows(data.train.labels, classes, _SEARCH_IMAGES))]
        judged += [data.validation] if data.validation is not None else []
        targets = torch.cat([images.labels for images in judged])
        exact_NC = torch.cat([self._student_logits(images) for images in judged])
        tail = thirds(data.class_counts)["tail"]

        def lost(file: Path) -> float:
            run = open_onnx(file, 0)
            logits_NC = torch.cat([logits_of(run, images, signature) for images in judged])
            return tail_loss(logits_NC, exact_NC, targets, tail)

        self._reporter.message(f"{small.name}: int8, calibrated with {counted(len(chosen), f'training {chosen.noun}')}")
        return quantize(path, small, calibration, lost, most, self._reporter.message)

    def _student_logits(self, images: Examples) -> Tensor:
        with torch.inference_mode():
            return torch.cat([self._student(torch.from_numpy(levels)) for levels in raw_batches(images)])

    def _measured(self, runtime: str, path: Path, signature: Signature) -> Cost:
        told = self._student.description
        shape, dtype = _one_input(told, signature)
        batches = BATCHES if signature.batch is None else (signature.batch,)
        task = Task(runtime, str(path), shape, dtype, batches, seconds=self._seconds)
        found = measure(task)
        if isinstance(found, str):
            return {"latency": [], "peak_mb": None, "failed": found}
        return {**found, "failed": None}
