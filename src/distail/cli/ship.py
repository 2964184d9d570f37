"""The verbs for a student that is finished: predict and export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distail.cli.options import NoCode, make_console

Threshold = Annotated[
    str | None,
    typer.Option(
        metavar="P|FILE",
        help="Multi-label: minimum probability of an assigned class, or a file with columns class,threshold.  "
        "[default: 0.5]",
    ),
]


def predict(
    student: Annotated[Path, typer.Argument(metavar="RUN|FILE", help="A run folder, or its student.safetensors.")],
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGE|FOLDER|LIST|TABLE...",
            help="One or more inputs. A list of images is .txt, or .csv with a column path; a table is .csv or "
            ".parquet; arrays are .npz.",
        ),
    ],
    top: Annotated[int, typer.Option(metavar="K", min=1, help="Number of classes per image.")] = 1,
    adjust: Annotated[
        float | None,
        typer.Option(metavar="TAU", help="Adjust the logits to equal class priors, or to --prior; 1 is Bayes' rule."),
    ] = None,
    prior: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Class priors to expect: JSON, or CSV with columns class,share.")
    ] = None,
    threshold: Threshold = None,
    identity: Annotated[
        str | None, typer.Option("--id", metavar="COLUMN", help="For tables: also write this column.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON Lines instead of CSV.")] = False,
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="Output file.  [default: the terminal]")] = None,
    network: Annotated[
        str | None,
        typer.Option(
            metavar="package.module:function",
            help="For a FILE whose network is your own code: the function that builds it.",
        ),
    ] = None,
    no_code: NoCode = False,
) -> None:
    """Predict classes for images, tables or arrays.

    Unreadable images are listed at the end; the exit code is then 1.
    """
    from distail.errors import ConfigError
    from distail.inference.paths import image_paths
    from distail.inference.predict import predict_files, write_answers
    from distail.inference.row_files import places_of, predict_rows
    from distail.inference.student import adjusted_student, adjustment_notes, load_student
    from distail.inference.thresholds import read_threshold
    from distail.models.description import Description
    from distail.training.progress import default_reporter

    loaded, tell = adjusted_student(load_student(student, network=network), adjust, prior), default_reporter().message
    if threshold is not None:
        loaded = loaded.with_thresholds(read_threshold(threshold))
    places: tuple[str, ...] = ()
    top = min(top, len(loaded.class_names))
    if not isinstance(loaded.description, Description):
        answers, places = predict_rows(loaded, images, top, identity, tell), places_of(identity)
    elif identity is not None:
        raise ConfigError(
            f"--id {identity}: the student is for images, whose predictions are named by file; leave it out"
        )
    else:
        answers = predict_files(loaded, image_paths(images), top)
    for note in adjustment_notes(loaded, student, adjust, prior):
        tell(note)
    write_answers(answers, output, as_json=as_json, top=top, places=places, multi_label=loaded.multi_label)


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[key=value ...]", help="Override config keys, e.g. data.root=DIR if the data have moved."
        ),
    ] = None,
    formats: Annotated[
        str, typer.Option("--format", metavar="LIST", help="Comma-separated: onnx, torch (.pt2), executorch (.pte).")
    ] = "onnx",
    int8: Annotated[
        bool, typer.Option("--int8", help="Also write an int8 ONNX file, calibrated on training images.")
    ] = False,
    batch: Annotated[str, typer.Option(help="Batch size: dynamic, or a number.")] = "dynamic",
    given: Annotated[
        str, typer.Option("--input", help="Input format: uint8 (H, W, C), or float (C, H, W) from 0 to 1.")
    ] = "uint8",
    adjust: Annotated[
        float | None,
        typer.Option(
            metavar="TAU", help="Logit adjustment as in predict, folded into the classifier bias where possible."
        ),
    ] = None,
    prior: Annotated[Path | None, typer.Option(metavar="FILE", help="As in predict.")] = None,
    threshold: Threshold = None,
    max_tail_loss: Annotated[
        float, typer.Option(metavar="POINTS", help="Maximum loss on the tail third; exceeding it exits with code 3.")
    ] = 1.0,
    output: Annotated[Path | None, typer.Option(metavar="DIR", help="Output folder.  [default: RUN/export]")] = None,
    no_code: NoCode = False,
) -> None:
    """Export a student for a device and measure the cost.

    The file includes resizing and normalization. Size, latency, memory and accuracy by class group are written to
    export.json and, in the run's own folder, to its page.
    """
    from distail.export.export import read_options
    from distail.export.show import run_export

    options = read_options(formats, int8, batch, given, adjust, prior, max_tail_loss, threshold)
    run_export(run, options, overrides or [], output, make_console())
