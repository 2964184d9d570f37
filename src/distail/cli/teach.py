"""The verb for stored answers: teach."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distail.cli.exit_codes import is_main_process
from distail.cli.options import NoCode, make_console


def teach(
    target: Annotated[
        Path, typer.Argument(metavar="RUN|CHECKPOINT", help="A run folder (its teacher), or a weights file.")
    ],
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CONFIG] [key=value ...]", help="The data to predict on; for a RUN, its own by default."
        ),
    ] = None,
    output: Annotated[Path, typer.Option(metavar="FILE", help="Output file, .safetensors.")] = Path(
        "answers.safetensors"
    ),
    top_k: Annotated[
        int | None, typer.Option("--top-k", metavar="K", help="Keep only the K largest probabilities.  [default: all]")
    ] = None,
    views: Annotated[
        int,
        typer.Option(
            metavar="K", help="Predict K augmented views of each training image.  [default: the unaugmented image]"
        ),
    ] = 0,
    no_code: NoCode = False,
) -> None:
    """Store a network's predictions for use as a teacher.

    Use the file with `teacher: {logits: FILE}`. Run the same command again to resume; torchrun shares the work.
    """
    from distail.runner.answers_writer import taught_sentence
    from distail.runner.teach import teach as write_answers
    from distail.training.distributed import destroy_process_group

    taught = write_answers(target, words or [], output=output, top_k=top_k, views=views)
    if is_main_process():
        make_console().print(taught_sentence(taught), highlight=False, soft_wrap=True, markup=False)
    destroy_process_group()
