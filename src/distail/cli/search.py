"""The verb for the repair of one's own data: search."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distail.cli.options import Config, EngineName, NoCode, Overrides, Parallel, make_console


def search(
    config: Config,
    overrides: Overrides = None,
    metric: Annotated[
        str | None,
        typer.Option(
            help="Validation metric to maximize: balanced_accuracy (multi-label: mean_average_precision) or "
            "worst_third.  [default: the first]"
        ),
    ] = None,
    top1_loss: Annotated[
        float | None,
        typer.Option(metavar="POINTS", help="Maximum loss of validation top-1 relative to kd.  [default: 5]"),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(help="Time limit in minutes, including the final comparison.  [default: 60, without --trials]"),
    ] = None,
    trials: Annotated[int | None, typer.Option(metavar="N", help="Maximum number of trials.")] = None,
    seeds: Annotated[
        str | None, typer.Option(help="Seeds of the final comparison.  [default: the next three after the search's]")
    ] = None,
    engine: EngineName = "local",
    parallel: Parallel = None,
    output: Annotated[Path | None, typer.Option(help="Output folder.  [default: searches/<name>]")] = None,
    no_code: NoCode = False,
) -> None:
    """Search for the best repair for your data.

    Tries repairs, strengths and recipes with one teacher, chooses on the validation split, and compares the choice with
    kd and ce over other seeds. Run the same command again to resume. Needs: pip install 'distail[search]'.
    """
    from distail.search.search import search as run_search
    from distail.search.show import print_search

    found = run_search(
        config,
        overrides or [],
        metric=metric,
        top1_loss=top1_loss,
        minutes=minutes,
        trials=trials,
        seeds=seeds,
        engine=engine,
        parallel=parallel,
        output=output,
    )
    try:
        print_search(found, make_console())
    finally:  # also where nobody reads the tables
        found.comparison.raise_if_failed()
