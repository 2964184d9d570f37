"""The verbs for a student that is finished: predict and export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distail.cli.options import NoCode


def predict(
    student: Annotated[Path, typer.Argument(metavar="RUN|FILE", help="A run's folder, or its student.safetensors.")],
    images: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGE|FOLDER|LIST...", help="Any number; a list is .txt, or .csv with a column path."),
    ],
    top: Annotated[int, typer.Option(metavar="K", min=1, help="How many classes for each image.")] = 1,
    adjust: Annotated[
        float | None,
        typer.Option(metavar="TAU", help="Expect all classes equally often, or as --prior says; 1 is Bayes' rule."),
    ] = None,
    prior: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Expected shares: JSON, or CSV with columns class,share.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object a line instead of CSV.")] = False,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write it there.  [default: the terminal]")
    ] = None,
    network: Annotated[
        str | None, typer.Option(metavar="package.module:function", help="For a FILE whose network is your own code.")
    ] = None,
    no_code: NoCode = False,
) -> None:
    """A student's answers for image files: path, class, probability.

    Files that cannot be read are listed at the end, and the exit code is then 1.
    """
    from distail.inference.paths import image_paths
    from distail.inference.predict import predict_files, write_answers
    from distail.inference.student import adjusted_student, load_student

    files = image_paths(images)
    loaded = adjusted_student(load_student(student, network=network), adjust, prior)
    write_answers(predict_files(loaded, files, top), output, as_json=as_json, top=top)
