"""On a GPU no step inside an epoch may make the host wait: torch itself raises where one does."""

import pytest
import torch
from test_training_teacher_cache import CLASSES, batches

from distail.config import Training
from distail.models import FeatureTap, create_model
from distail.objective.presets import create_method, list_methods
from distail.training.checkpoint import CheckpointFolder
from distail.training.history import History
from distail.training.loop import fit
from distail.training.machine import Machine
from distail.training.progress import Silent
from distail.training.stage import Stage
from distail.training.step import frozen
from distail.training.teacher_cache import TeacherCache


class Unwaiting:
    """Batches between whose first and last step the host may not wait for the device."""

    def __init__(self, wrapped):
        self.wrapped = wrapped

    def __getattr__(self, name):
        return getattr(self.wrapped, name)

    def epoch(self, epoch, first_step=0):
        try:
            for step, batch in enumerate(self.wrapped.epoch(epoch, first_step), first_step + 1):
                torch.cuda.set_sync_debug_mode("error" if step < self.wrapped.steps_per_epoch else "default")
                yield batch
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("views", "limit_mb"), [(0, 0), (2, 64), (2, 0)])
@pytest.mark.parametrize("method", sorted(list_methods()))
def test_no_step_of_an_epoch_waits_for_the_gpu(tmp_path, method, views, limit_mb):
    machine = Machine(torch.device("cuda"), "bf16")
    shown = batches(views=views, device="cuda")
    listen = frozen(FeatureTap(create_model("resnet8", num_classes=CLASSES), CLASSES).cuda(), machine)
    cache = TeacherCache(listen, shown, machine, features=True, limit_mb=limit_mb, folder=tmp_path) if views else None
    changes = {"assignment": "identity"} if method == "krdistill" else {}
    stage = Stage(
        name="student",
        student=FeatureTap(create_model("resnet8", num_classes=CLASSES), CLASSES).cuda(),
        teacher=None if method == "ce" else cache or listen,
        method=create_method(method, class_counts=[140] * CLASSES, student_dim=64, teacher_dim=64, **changes).cuda(),
        batches=Unwaiting(shown),
        validate=None,
        training=Training(epochs=2, batch_size=64, learning_rate=0.01),
        machine=machine,
        seed=0,
        fill=cache.fill if cache else None,
    )
    fitted = fit(stage, CheckpointFolder(tmp_path / "checkpoints"), History(tmp_path), Silent(), 10**9)
    assert len(fitted.history) == 2
