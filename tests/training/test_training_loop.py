"""The loop on data small enough to run in a second: resuming, stopping, and refusing to go on."""

import json
import os
import signal
import time
from contextlib import closing
from dataclasses import replace

import pytest
import torch
from torch import nn

from distail.data.batches import TrainingBatches
from distail.errors import CheckpointError, TrainingError
from distail.methods.presets import create_method
from distail.models import FeatureTap, Outputs
from distail.training.checkpoint import CheckpointFolder
from distail.training.device import RuntimeDevice
from distail.training.history import History
from distail.training.loop import fit
from distail.training.progress import Silent
from distail.training.signals import Interrupted
from distail.training.trackers import build_trackers
from helpers.small_stages import (
    COUNTS,
    Network,
    StopAfter,
    assert_equal_weights,
    balanced,
    images,
    stage,
    train,
    weights,
)


@pytest.mark.parametrize("method", ["ce", "kd", "bkd", "drkd"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_stopped_and_resumed_training_ends_bit_for_bit_like_one_that_was_not(tmp_path, method, optimizer):
    options = {"teacher": method != "ce", "validate": balanced, "optimizer": optimizer}
    whole = stage(method, **options)
    fitted = train(whole, tmp_path / "whole")
    for stop_after in (1, 6):
        part = stage(method, **options)
        with pytest.raises(Interrupted):
            train(part, tmp_path / "parts", reporter=StopAfter(stop_after))
    last = stage(method, **options)
    resumed = train(last, tmp_path / "parts")
    assert_equal_weights(weights(whole), weights(last))
    timeless = ("seconds", "images_per_second")
    strip = [[{k: v for k, v in row.items() if k not in timeless} for row in run.history] for run in (fitted, resumed)]
    assert strip[0] == strip[1]
    assert fitted.best.epoch == resumed.best.epoch
    assert_equal_weights(fitted.best.weights, resumed.best.weights)


class TiedNetwork(Network):
    """Two names for one layer, and a buffer that looks into another's memory."""

    def __init__(self):
        super().__init__()
        self.again = self.body[0]
        self.register_buffer("window", self.body[1].running_mean[1:3])

    def forward(self, images):
        return super().forward(images) + self.again(images).mean()


def test_a_network_with_shared_weights_is_stored_and_resumed_exactly(tmp_path):
    def tied():
        torch.manual_seed(3)
        return replace(stage("ce", teacher=False), student=FeatureTap(TiedNetwork(), 3))

    whole = tied()
    train(whole, tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(tied(), tmp_path / "parts", reporter=StopAfter(6))
    last = tied()
    train(last, tmp_path / "parts")
    assert_equal_weights(weights(whole), weights(last))


def test_a_damaged_newest_checkpoint_costs_only_its_interval(tmp_path):
    whole = stage()
    train(whole, tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(stage(), tmp_path / "parts", every=3, reporter=StopAfter(8))
    newest = sorted((tmp_path / "parts" / "checkpoints").iterdir())[-1]
    newest.write_bytes(newest.read_bytes()[:-10])
    last = stage()
    train(last, tmp_path / "parts")
    assert_equal_weights(weights(whole), weights(last))


def test_training_learns(tmp_path):
    trained = stage("ce", teacher=False, epochs=12, learning_rate=0.02)
    fitted = train(trained, tmp_path)
    assert fitted.history[-1]["loss"] < 0.7 * fitted.history[0]["loss"]
    assert balanced(trained.student)["top1"] > 80


def test_the_history_has_one_line_an_epoch_with_terms_that_sum_to_the_loss(tmp_path):
    fitted = train(stage("kd", validate=balanced), tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows == fitted.history
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    for row in rows:
        assert sum(row["terms"].values()) == pytest.approx(row["loss"], rel=1e-5)
        assert set(row["terms"]) == {"supervised", "distillation"}
        assert 0 <= row["validation"]["top1"] <= 100


def test_the_mean_loss_of_an_epoch_weighs_samples_not_batches(tmp_path):
    frozen = stage("ce", teacher=False, epochs=1, learning_rate=1e-30)
    frozen.student.model.body[1].eval()
    losses, sizes = [], []
    method = frozen.method
    original = method.forward

    def spy(student, teacher, target, *, index=None):
        terms = original(student, teacher, target, index=index)
        losses.append(terms.per_sample.detach().clone())
        sizes.append(len(target))
        return terms

    method.forward = spy
    fitted = train(frozen, tmp_path)
    assert sizes == [8, 8, 8, 8, 3]
    assert fitted.history[0]["loss"] == pytest.approx(torch.cat(losses).mean().item(), rel=1e-5)


class OnePixel(nn.Module):
    """Batch norm over maps of one pixel: it cannot learn from a single image."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 8), nn.BatchNorm2d(4), nn.Flatten())
        self.classifier = nn.Linear(4, 3)

    def forward(self, images):
        return self.classifier(self.body(images))


def test_one_image_left_over_ends_no_training_and_weighs_as_much_as_any(tmp_path):
    def left_over():
        whole = stage("ce", teacher=False, epochs=2, batch_size=17, learning_rate=1e-30)
        batches = TrainingBatches(images(), batch_size=17, mean=[0.4], std=[0.2], num_classes=3, seed=5)
        torch.manual_seed(2)
        return replace(whole, student=FeatureTap(OnePixel(), 3), batches=batches)

    whole = left_over()
    losses, forward = [], whole.method.forward

    def spy(*given, **named):
        terms = forward(*given, **named)
        losses.append(terms.per_sample.detach().clone())
        return terms

    whole.method.forward = spy
    fitted = train(whole, tmp_path / "whole")
    assert [len(loss) for loss in losses] == [17, 18, 17, 18]
    assert fitted.history[0]["loss"] == pytest.approx(torch.cat(losses[:2]).mean().item(), rel=1e-5)
    with pytest.raises(Interrupted):
        train(left_over(), tmp_path / "parts", reporter=StopAfter(2))
    last = left_over()
    train(last, tmp_path / "parts")
    assert_equal_weights(weights(whole), weights(last))


def test_batches_of_one_image_that_batch_normalization_cannot_learn_from_are_told(tmp_path):
    whole = stage("ce", teacher=False, batch_size=1)
    batches = TrainingBatches(images(), batch_size=1, mean=[0.4], std=[0.2], num_classes=3, seed=5)
    one_pixel = replace(whole, student=FeatureTap(OnePixel(), 3), batches=batches)
    with pytest.raises(TrainingError, match=r"cannot learn from a single image, .* training\.batch_size of at least 2"):
        train(one_pixel, tmp_path / "one-pixel")
    train(replace(whole, batches=batches), tmp_path / "many-pixels")


def test_sigterm_is_told_apart_from_sigint(tmp_path):
    with pytest.raises(Interrupted) as caught:
        train(stage(), tmp_path, reporter=StopAfter(2, signal.SIGTERM))
    assert caught.value.signal_number == signal.SIGTERM
    assert CheckpointFolder(tmp_path / "checkpoints").steps() == [2]


class StopInValidation:
    """Sends this process a signal while its n-th validation is under way."""

    def __init__(self, left, number=signal.SIGTERM):
        self.left, self.number, self.finished = left, number, 0

    def __call__(self, tap):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), self.number)
        self.finished += 1
        return balanced(tap)


def test_a_signal_in_validation_acts_at_once_and_the_epoch_is_ended_by_the_next_start(tmp_path):
    whole = stage(validate=balanced)
    fitted = train(whole, tmp_path / "whole")
    validate = StopInValidation(2)
    with pytest.raises(Interrupted) as caught:
        train(stage(validate=validate), tmp_path / "parts", every=100)
    assert (caught.value.signal_number, caught.value.saved, validate.finished) == (signal.SIGTERM, True, 1)
    assert CheckpointFolder(tmp_path / "parts" / "checkpoints").steps() == [10]
    last = stage(validate=balanced)
    resumed = train(last, tmp_path / "parts")
    assert_equal_weights(weights(whole), weights(last))
    timeless = ("seconds", "images_per_second")
    strip = [[{k: v for k, v in row.items() if k not in timeless} for row in run.history] for run in (fitted, resumed)]
    assert strip[0] == strip[1]
    assert History(tmp_path / "parts").rows() == resumed.history


def test_a_signal_before_training_has_begun_acts_at_once_and_writes_nothing(tmp_path):
    def prepare():
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the pass went on")

    with pytest.raises(Interrupted) as caught:
        train(replace(stage(), prepare=prepare), tmp_path)
    assert not caught.value.saved
    assert CheckpointFolder(tmp_path / "checkpoints").steps() == []


@pytest.mark.parametrize("steps", [0, 3])
def test_a_signal_to_all_processes_of_a_job_is_a_stop_and_no_failure(tmp_path, steps):
    """It ends the processes that decode images, too: what is heard of first is that they are gone."""
    whole, stopped = stage(), stage()
    train(whole, tmp_path / "whole")

    class Ended:
        steps_per_epoch, num_images = stopped.batches.steps_per_epoch, stopped.batches.num_images
        weights = None

        def close(self): ...

        def epoch(self, epoch, first_step=0):
            batches = stopped.batches.epoch(epoch, first_step)
            for _ in range(steps):
                yield next(batches)
            os.kill(os.getpid(), signal.SIGTERM)
            raise TrainingError("a process that decodes images has ended")

    with pytest.raises(Interrupted) as caught:
        train(replace(stopped, batches=Ended()), tmp_path / "parts")
    assert (caught.value.signal_number, caught.value.saved) == (signal.SIGTERM, steps > 0)
    assert CheckpointFolder(tmp_path / "parts" / "checkpoints").steps() == [3][:steps]
    last = stage()
    train(last, tmp_path / "parts")
    assert_equal_weights(weights(whole), weights(last))


def test_a_signal_while_the_last_checkpoint_is_written_stops_after_it(tmp_path, monkeypatch):
    fsync, signals = os.fsync, [signal.SIGTERM]

    def disturbed(descriptor):
        if "step-00000015" in os.readlink(f"/proc/self/fd/{descriptor}") and signals:
            os.kill(os.getpid(), signals.pop())
        fsync(descriptor)

    whole, part = stage(), stage()
    monkeypatch.setattr(os, "fsync", disturbed)
    with pytest.raises(Interrupted) as caught:
        train(part, tmp_path)
    assert (caught.value.signal_number, caught.value.saved) == (signal.SIGTERM, True)
    assert CheckpointFolder(tmp_path / "checkpoints").steps()[-1] == 15
    train(part, tmp_path)
    train(whole, tmp_path / "whole", every=100)
    assert_equal_weights(weights(part), weights(whole))


def test_a_second_signal_acts_at_once(tmp_path):
    class Twice(Silent):
        def step(self):
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)
            raise AssertionError("the step went on")

    with pytest.raises(Interrupted) as caught:
        train(stage(), tmp_path, reporter=Twice())
    assert (caught.value.signal_number, caught.value.saved) == (signal.SIGTERM, False)


def test_other_data_under_the_same_checkpoints_is_refused(tmp_path):
    train(replace(stage(epochs=1), identity={"test_data": "a" * 64, "teacher": "c" * 64}), tmp_path)
    with pytest.raises(CheckpointError, match=r"other test images or labels .*another teacher"):
        train(replace(stage(epochs=1), identity={"test_data": "b" * 64, "teacher": "d" * 64}), tmp_path)


def test_a_finished_stage_writes_no_checkpoint_again(tmp_path):
    fitted = train(stage(epochs=1), tmp_path)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "checkpoints").iterdir()}
    again = train(stage(epochs=1), tmp_path)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "checkpoints").iterdir()} == before
    assert again == fitted


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"format": 99}, "in format 99 "), ({"written_with": {"torch": "1.0"}}, "begun with torch 1.0")],
)
def test_checkpoints_of_other_versions_are_refused_or_told(tmp_path, changes, said):
    with pytest.raises(Interrupted):
        train(stage(), tmp_path, reporter=StopAfter(3))
    folder = CheckpointFolder(tmp_path / "checkpoints")
    found = folder.latest()
    folder.save(replace(found, values={**found.values, **changes}))
    told = Messages()
    if "format" in changes:
        with pytest.raises(CheckpointError, match=said):
            train(stage(), tmp_path, reporter=told)
    else:
        train(stage(), tmp_path, reporter=told)
        assert said in told.texts[0]


class Messages(Silent):
    def __init__(self):
        self.texts = []

    def message(self, text):
        self.texts.append(text)


def test_handlers_are_put_back(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    train(stage(epochs=1), tmp_path)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_loss_that_is_not_finite_stops_says_where_and_keeps_the_last_good_checkpoint(tmp_path):
    bad = stage(learning_rate=1e30, epochs=4)
    with pytest.raises(
        TrainingError, match=r"the loss is not finite at step \d+ \(epoch \d+, step \d of 5\).*with another output"
    ):
        train(bad, tmp_path, every=1)
    kept = CheckpointFolder(tmp_path / "checkpoints").latest()
    assert kept is not None
    assert kept.step >= 1


def test_a_teacher_that_is_not_finite_is_named(tmp_path):
    def broken(batch):
        return Outputs(torch.full((len(batch.labels), 3), float("nan")), None)

    with pytest.raises(TrainingError, match="the teacher's logits are not finite at step 0"):
        train(replace(stage(), teacher=broken), tmp_path)


def test_what_is_filled_before_the_first_step_counts_for_the_stage_and_for_no_epoch(tmp_path):
    calls = []

    def fill(reporter):
        calls.append(reporter)
        time.sleep(1.0)

    filled = train(replace(stage(epochs=1), fill=fill), tmp_path)
    assert filled.seconds >= 1.0 + filled.history[0]["seconds"] - 0.01
    assert len(calls) == 1
    train(replace(stage(epochs=1), fill=fill), tmp_path)
    assert len(calls) == 1


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    train(stage(epochs=1), tmp_path)
    other = stage()
    wide = FeatureTap(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), 3)
    with pytest.raises(CheckpointError, match="does not fit"):
        train(replace(other, student=wide), tmp_path)


def test_gradient_clipping_limits_the_step(tmp_path):
    clipped = stage(
        "ce", teacher=False, epochs=1, gradient_clip=1e-6, momentum=0.0, weight_decay=0.0, learning_rate=1.0
    )
    before = {name: value.clone() for name, value in clipped.student.named_parameters()}
    train(clipped, tmp_path)
    moved = sum((value - before[name]).norm().item() for name, value in clipped.student.named_parameters())
    assert 0 < moved < 5 * 1e-6 * 6


@pytest.mark.parametrize("gradient_clip", [None, 0.05])
def test_ipwd_with_all_weights_one_trains_the_student_bit_for_bit_as_ce_and_kl(tmp_path, gradient_clip):
    """Also where gradients are clipped: those of the second head must not decide where the student's are."""
    plain = stage({"supervised": "ce", "divergence": "kl"}, gradient_clip=gradient_clip)
    own = create_method("ipwd", class_counts=COUNTS, student_dim=plain.student.feature_dim, start=1.0)
    weighed = replace(stage(gradient_clip=gradient_clip), method=own)
    train(plain, tmp_path / "plain")
    train(weighed, tmp_path / "weighed")
    assert_equal_weights(weights(plain), weights(weighed))


def test_a_line_cut_off_by_a_kill_does_not_break_the_history(tmp_path):
    train(stage(epochs=2), tmp_path)
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text()[:-20])
    assert [row["epoch"] for row in History(tmp_path).rows()] == [0]


def test_rewinding_one_stage_keeps_the_other(tmp_path):
    history = History(tmp_path)
    rows = [{"stage": "teacher", "epoch": 0}, {"stage": "student", "epoch": 0}, {"stage": "student", "epoch": 1}]
    for row in rows:
        history.append(row)
    history.rewind("student", rows[1:2])
    history.close()
    assert history.rows() == rows[:2]


def test_tensorboard_shows_the_terms_by_name_and_every_epoch_once(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def start(reporter):
        trackers = build_trackers(["tensorboard"], "quick", tmp_path, {"seed": 3, "teacher": None}, print)
        with closing(History(tmp_path, trackers)) as history:
            fit(stage("kd", validate=balanced), CheckpointFolder(tmp_path / "c"), history, reporter, 100)

    with pytest.raises(Interrupted):
        start(StopAfter(12))
    start(Silent())
    assert [path for path in (tmp_path / "tensorboard").iterdir() if path.is_dir()] == []
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    assert {"student/loss", "student/terms/supervised", "student/validation/groups/thirds/tail"} <= tags
    assert [event.step for event in events.Scalars("student/loss")] == [0, 1, 2]


def test_bf16_trains_too(tmp_path):
    trained = stage("bkd", runtime=RuntimeDevice(torch.device("cpu"), "bf16"), epochs=1)
    assert train(trained, tmp_path).history[0]["loss"] > 0


@pytest.mark.slow
def test_compiled_training_gives_the_same_history_but_for_rounding(tmp_path):
    plain, compiled = stage(epochs=1), replace(stage(epochs=1), compile=True)
    first = train(plain, tmp_path / "plain").history[0]
    second = train(compiled, tmp_path / "compiled").history[0]
    assert second["loss"] == pytest.approx(first["loss"], rel=0.05)
