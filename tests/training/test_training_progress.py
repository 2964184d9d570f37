"""What a person sees: a bar that fits a narrow terminal, plain lines elsewhere."""

import errno
import io
import re
import sys

import pytest
from rich.console import Console

from distail.training.progress import Bar, Lines, Named, NotebookBar, default_reporter

ROW = {
    "stage": "student",
    "epoch": 6,
    "loss": 0.94701,
    "terms": {"supervised": 0.5, "distillation": 0.44701},
    "statistics": {"rectified_share": 0.22512},
    "validation": {
        "top1": 73.469,
        "balanced_accuracy": 41.25,
        "groups": {"thirds": {"head": 80.0, "medium": None, "tail": 2.125}},
    },
    "learning_rate": 0.05,
    "images_per_second": 1234.5,
}


def shown(terminal, width=80):
    console = Console(file=io.StringIO(), force_terminal=terminal, width=width, color_system=None)
    reporter = default_reporter(console)
    reporter.message("hello [not markup]")
    reporter.start("student", epochs=8, steps_per_epoch=400, done_steps=2400)
    reporter.step()
    reporter.epoch(ROW, 8)
    reporter.finish()
    return reporter, console.file.getvalue()


def test_a_terminal_gets_a_bar_with_loss_accuracy_and_time_left_in_80_columns():
    reporter, text = shown(terminal=True)
    assert isinstance(reporter, Bar)
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)
    last = [line for line in plain.replace("\r", "\n").splitlines() if line.strip()][-1]
    for part in ("student", "2401/3200", "loss 0.947", "validation 73.5, balanced 41.2", ":"):
        assert part in last
    assert "…" not in last


def test_a_pipe_gets_one_plain_line_an_epoch():
    reporter, text = shown(terminal=False, width=40)
    assert isinstance(reporter, Lines)
    assert text.splitlines() == [
        "hello [not markup]",
        "student: resuming after step 2400 of 3200",
        "student epoch 7/8  loss 0.9470 (supervised 0.5000, distillation 0.4470)  rectified_share 0.225  "
        "validation top-1 73.47  balanced 41.25  head 80.00  tail 2.12  learning rate 0.05  1234 images/s  "
        "under a minute left",
    ]


class Clock:
    """Seconds that a test moves on."""

    now = 0.0

    def __call__(self):
        return self.now


def test_a_log_has_a_line_every_half_minute_with_run_stage_and_time_left():
    console, clock = Console(file=io.StringIO(), width=40), Clock()
    reporter = Named(Lines(console, clock), "bkd", {"student": "shared teacher"})
    reporter.message("hello")
    reporter.start("student", epochs=2, steps_per_epoch=100, done_steps=20)
    for _ in range(80):
        clock.now += 10
        reporter.step()
    reporter.epoch(ROW, 8)
    reporter.finish()
    first, resumed, *steps, last = console.file.getvalue().splitlines()
    assert first == "bkd: hello"
    assert resumed.startswith("bkd: shared teacher: resuming after step 20")
    assert steps[0] == "bkd: shared teacher epoch 1/2, step 23 of 100  about 30 min left"
    assert len(steps) == 80 * 10 // 30
    assert last.startswith("bkd: shared teacher epoch 7/8  loss")
    assert last.endswith("about 17 min left")


def test_lines_are_named_where_nothing_else_names_the_run():
    console = Console(file=io.StringIO(), width=40)
    default_reporter(console, name="mine").message("hello")
    assert console.file.getvalue() == "mine: hello\n"


class Broken(io.StringIO):
    """What is left of a terminal that was closed, or a log on a full disk."""

    def write(self, text):
        raise OSError(errno.EIO, "Input/output error")

    def flush(self):
        raise BrokenPipeError


@pytest.mark.parametrize("terminal", [False, True])
def test_a_run_goes_on_when_nobody_can_be_told(terminal, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Broken())
    reporter = default_reporter(force_terminal=terminal)
    reporter.message("hello")
    reporter.start("student", 2, 3, 0)
    reporter.step()
    reporter.finish()


def test_a_notebook_gets_a_bar_that_is_drawn_again_in_its_place(capsys):
    shown, now = [], iter(range(100))

    class Place:
        def update(self, drawn):
            shown.append(drawn._repr_html_())

    def display(drawn, display_id):
        shown.append(drawn._repr_html_())
        return Place()

    reporter = NotebookBar(display, clock=lambda: next(now) / 100)
    reporter.message("hello \x1b[2J")
    reporter.start("<student>", epochs=8, steps_per_epoch=4, done_steps=24)
    for _ in range(4):
        reporter.step()
    drawn_while_it_went = len(shown)
    reporter.epoch(ROW, 8)
    reporter.finish()
    reporter.step()
    assert capsys.readouterr().out == "hello \\x1b[2J\n"
    assert '<progress value="24" max="32"' in shown[0]
    assert "&lt;student&gt;" in shown[0]
    assert drawn_while_it_went < 3  # steps of a hundredth of a second are not drawn each
    assert '<progress value="28" max="32"' in shown[-1]
    assert "epoch 7/8" in shown[-1]
    assert "balanced 41.2" in shown[-1]
