"""The command line: verbs only, no logic. Heavy modules are imported inside the verbs, so that `--help` is quick."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from distail import __version__
from distail.audit.defaults import KEEP_HEAD
from distail.cli.exit_codes import DONE, INTERRUPTED, exit_code_of, is_main_process
from distail.cli.options import Config, EngineName, NoCode, Overrides, Parallel, make_console
from distail.cli.search import search
from distail.cli.ship import export, predict
from distail.cli.streams import settle_streams
from distail.cli.teach import teach
from distail.compare import defaults

app = typer.Typer(
    name="distail",
    help="Distill a large, biased teacher into a small student that keeps the rare classes.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 bad input, 130 interrupted (143 by SIGTERM).

    Beside these, `export` has 3: a file loses more than it may.
    """
    # Read when torch is imported, which no verb has done yet. Idle OpenMP threads that spin make a step many times
    # slower as soon as another program wants the core; large tensors in small pages are slow to make anew.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    # NumPy's and SciPy's OpenBLAS, which nothing here keeps busy, asks for 32 MB per thread as soon as it is loaded,
    # and where there is a limit of memory it asks for ever. Elsewhere torch may compute with it.
    if platform.machine() in ("x86_64", "AMD64"):
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    settle_streams()
    try:
        code = app(args=list(arguments) if arguments is not None else None, standalone_mode=False)
        sys.stdout.flush()  # what cannot be written is told here, and not by the interpreter when it ends
    except BaseException as error:
        return exit_code_of(error)
    # typer turns Ctrl-C into a value that it returns.
    return exit_code_of(KeyboardInterrupt()) if code == INTERRUPTED else DONE


@app.callback(invoke_without_command=True)
def _options(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def demo(
    data: Annotated[str, typer.Option(help="digits (comes with scikit-learn) or fashion-mnist.")] = "digits",
    output: Annotated[Path, typer.Option(help="Folder for the runs.")] = Path("runs"),
    seed: Annotated[int, typer.Option(help="Random seed of the subset, the weights and the batch order.")] = 0,
) -> None:
    """Train one biased teacher and four students; print a table.

    Uses a small long-tailed data set and writes a page of the results, class by class.
    """
    from distail.cli.demo import run_demo

    run_demo(data, output, seed, make_console())


@app.command()
def run(
    config: Annotated[
        Path,
        typer.Argument(metavar="CONFIG", help="A YAML file; `distail configs` lists some."),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[key=value ...]", help="Override config keys, e.g. training.epochs=30 method=bkd."),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Show what the run would do and how long it would take; train nothing.")
    ] = False,
    no_code: NoCode = False,
) -> None:
    """Distill a student, or resume an unfinished run.

    Run the same command again to resume; a finished run returns at once.
    """
    if plan:
        from distail.cli.plan import print_plan
        from distail.runner.checks import read_experiment
        from distail.runner.plan import plan_run

        print_plan(plan_run(read_experiment(config, overrides or [])), make_console())
        return
    from distail.cli.show import print_run
    from distail.runner.checks import read_experiment
    from distail.runner.run import run as run_experiment
    from distail.training.distributed import destroy_process_group

    result = run_experiment(read_experiment(config, overrides or []))
    if is_main_process():
        print_run(result.folder, make_console())
    destroy_process_group()


@app.command()
def audit(
    target: Annotated[
        Path,
        typer.Argument(metavar="TARGET", help="A run folder, a weights file, or a file of logits and labels."),
    ],
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[CONFIG] [key=value ...]", help="For a weights file: the data, e.g. data.root=DIR."),
    ] = None,
    class_counts: Annotated[
        str | None,
        typer.Option(metavar="FILE|LIST", help="Training images per class (for logits): 500,120,30 or a file."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(metavar="SPLIT", help="validation (default), train (if there is no validation split) or test."),
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="Temperature for all repairs.  [default: each method's own]")
    ] = None,
    keep_head: Annotated[
        float, typer.Option(metavar="PERCENT", help="Minimum share of the head that the recommendation must keep.")
    ] = KEEP_HEAD,
    all_classes: Annotated[bool, typer.Option("--all-classes", help="Show all classes, not only the worst.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print all results as JSON.")] = False,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write the results to this .json or .md file.")
    ] = None,
    no_code: NoCode = False,
) -> None:
    """Measure how biased a teacher is and what each repair would do.

    Needs no training. Logits and labels can come from any framework: .safetensors, .npz or .parquet with logits and
    labels, or .csv with columns label, logit_0, logit_1, ... (or columns named after the classes).
    """
    from distail.audit.show import run_audit

    run_audit(
        target,
        words or [],
        make_console(),
        split=split,
        class_counts=class_counts,
        temperature=temperature,
        keep_head=keep_head,
        all_classes=all_classes,
        as_json=as_json,
        output=output,
    )


@app.command()
def compare(
    config: Config,
    overrides: Overrides = None,
    methods: Annotated[
        str,
        typer.Option(
            help="A YAML list or file of names or labeled methods, e.g. 'kd, warm: {name: kd, temperature: 8}'."
        ),
    ] = defaults.METHODS,
    seeds: Annotated[str, typer.Option(help="Train each method once per seed: 0,1,2 or 0-4.")] = defaults.SEEDS,
    baseline: Annotated[
        str | None, typer.Option(help="Method that the others are compared with.  [default: kd, else the first]")
    ] = None,
    teachers: Annotated[
        str, typer.Option(help="shared: one teacher per seed; own: the teacher of each method's paper.")
    ] = "shared",
    grid: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE,VALUE", help="Values to choose from on the validation split; repeat for a product."
        ),
    ] = None,
    engine: EngineName = "local",
    parallel: Parallel = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Output folder.  [default: comparisons/<name>; with --teachers own comparisons/<name>-own-teachers]"
        ),
    ] = None,
    no_code: NoCode = False,
) -> None:
    """Compare methods over seeds and separate differences from noise.

    Trains each teacher once per seed and shares it. Run the same command again to resume; finished runs are kept.
    """
    from distail.compare.compare import compare as run_jobs
    from distail.compare.tables import print_tables

    comparison = run_jobs(
        config,
        overrides or [],
        methods=methods,
        seeds=seeds,
        baseline=baseline,
        teachers=teachers,
        grid=grid or [],
        engine=engine,
        parallel=parallel,
        output=output,
    )
    console = make_console()
    try:
        print_tables(comparison.content, console)
        where = f"Open {comparison.folder}/report.html; the tables are in {comparison.folder}/tables/."
        console.print(where, highlight=False, soft_wrap=True, markup=False)
    finally:  # also where nobody reads the tables
        comparison.raise_if_failed()


app.command()(search)
app.command()(teach)


@app.command()
def evaluate(
    target: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    adjust: Annotated[
        str | None,
        typer.Option(metavar="TAU|auto", help="Strength of logit adjustment; auto: chosen on validation."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all metrics as JSON.")] = False,
) -> None:
    """Recompute all metrics from the stored predictions."""
    from distail.cli.show import print_evaluation
    from distail.config.tau import read_tau
    from distail.errors import ConfigError

    try:
        tau = None if adjust is None else read_tau(adjust)
    except ValueError as error:
        raise ConfigError(f"--adjust: {error}") from None
    print_evaluation(target, make_console(), as_json=as_json, adjust=tau)


@app.command()
def report(
    targets: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN_OR_COMPARISON...", help="A folder written by `run` or `compare`, or several run folders."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(help="HTML file.  [default: report.html in the folder; for several runs, here]"),
    ] = None,
    figures: Annotated[
        bool, typer.Option(help="Also write figures/ next to the page, as PNG and SVG for papers.")
    ] = True,
    title: Annotated[str | None, typer.Option(help="Heading of the page.")] = None,
) -> None:
    """Write an HTML page of the results, class by class.

    The page is one self-contained file. For an unfinished or damaged run it lists what is missing.
    """
    from distail.cli.show import write_pages

    write_pages(targets, output, figures=figures, title=title, console=make_console())


app.command()(predict)
app.command()(export)


@app.command()
def methods(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Method to explain.")] = None,
) -> None:
    """List the methods, or explain one."""
    from distail.cli.show import print_method, print_methods

    if name is None:
        print_methods(make_console())
    else:
        print_method(name, make_console())


@app.command()
def configs(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Configuration to copy.")] = None,
    destination: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="File to write.")] = None,
) -> None:
    """List the included experiment configurations, or copy one."""
    from distail.config.shipped import copy_config, describe_configs
    from distail.report.table import Table

    if name is None:
        rows = list(describe_configs().items())
        Table(["configuration", "description"], rows, text_columns=frozenset({0, 1})).print(make_console())
        typer.echo("\ndistail configs NAME copies one; distail run NAME.yaml runs it.")
    else:
        make_console().print(f"copied to {copy_config(name, destination)}", highlight=False, markup=False)
