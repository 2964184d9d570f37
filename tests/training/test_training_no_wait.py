"""On a GPU no step inside an epoch may make the host wait: torch itself raises where one does.

Without a GPU a step is watched for whatever asks a tensor for its values, which is what would make the host wait there.
"""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from distail.config.augment import AUGMENTATIONS, ColorJitter
from distail.config.schema import Training
from distail.config.training import Mix
from distail.data.augment import apply_drawn, draw_augmentation, in_order
from distail.data.mixing import mix_inputs, plan_mix
from distail.methods.presets import create_method, list_methods
from distail.models import FeatureTap, create_model
from distail.training.checkpoint import CheckpointFolder
from distail.training.device import RuntimeDevice
from distail.training.frozen_teacher import frozen_teacher
from distail.training.history import History
from distail.training.loop import fit
from distail.training.progress import Silent
from distail.training.stage import Stage
from distail.training.teacher_cache import TeacherCache
from helpers.view_batches import CLASSES, batches


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


class Asked(AssertionError):
    pass


class NoQuestions(TorchDispatchMode):
    """Raises where a tensor is asked for its values, or for a shape that depends on them."""

    QUESTIONS = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "equal", "is_nonzero")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        picked = args[1] if func.overloadpacket is torch.ops.aten.index else ()
        masked = any(part is not None and part.dtype == torch.bool for part in picked)
        if masked or func.overloadpacket.__name__ in self.QUESTIONS:
            raise Asked(str(func))
        return func(*args, **(kwargs or {}))


class Watch(Silent):
    """Watches from when a batch is handed out to the end of its step."""

    mode = None

    def begin(self):
        self.mode = NoQuestions()
        self.mode.__enter__()

    def step(self):
        if self.mode is not None:
            self.mode.__exit__(None, None, None)
            self.mode = None


class Unasked(Unwaiting):
    """Batches whose steps, but for the last, may ask no tensor for its values."""

    def __init__(self, wrapped, watch):
        super().__init__(wrapped)
        self.watch = watch

    def epoch(self, epoch, first_step=0):
        try:
            for step, batch in enumerate(self.wrapped.epoch(epoch, first_step), first_step + 1):
                if step < self.wrapped.steps_per_epoch:
                    self.watch.begin()
                yield batch
        finally:
            self.watch.step()


def trained(folder, method, views, limit_mb, runtime, wrap, reporter=None, *, augment=("crop", "flip"), **training):
    device = runtime.device
    settings = Training(epochs=2, batch_size=64, learning_rate=0.01, gradient_clip=5.0, **training)
    shown = batches(views=views, device=str(device), augment=augment, mix=settings.mix)
    network = FeatureTap(create_model("resnet8", num_classes=CLASSES), CLASSES).to(device)
    listen = frozen_teacher(network, runtime, examples=torch.randn(2, 3, 8, 8))
    cache = TeacherCache(listen, shown, runtime, features=True, limit_mb=limit_mb, folder=folder) if views else None
    changes = {"assignment": "identity"} if method == "krdistill" else {}
    stage = Stage(
        name="student",
        student=FeatureTap(create_model("resnet8", num_classes=CLASSES), CLASSES).to(device),
        teacher=None if method in ("ce", ONE_STAGE) else cache or listen,
        method=create_method(method, class_counts=[140] * CLASSES, student_dim=64, teacher_dim=64, **changes).to(
            device
        ),
        batches=wrap(shown),
        validate=None,
        training=settings,
        runtime=runtime,
        seed=0,
        fill=cache.fill if cache else None,
    )
    fitted = fit(stage, CheckpointFolder(folder / "checkpoints"), History(folder), reporter or Silent(), 10**9)
    assert len(fitted.history) == 2


RECIPE = {"mix": {"name": "cutmix"}, "ema_decay": 0.9, "accumulation_steps": 2}
ONE_STAGE = {"name": "ipwd", "teacher": "previous_epoch"}
everywhere = pytest.mark.parametrize("method", [*sorted(list_methods()), ONE_STAGE], ids=str)
stored = pytest.mark.parametrize(("views", "limit_mb"), [(0, 0), (2, 64), (2, 0)])


@pytest.mark.gpu
@stored
@everywhere
def test_no_step_of_an_epoch_waits_for_the_gpu(tmp_path, method, views, limit_mb):
    trained(tmp_path, method, views, limit_mb, RuntimeDevice(torch.device("cuda"), "bf16"), Unwaiting)


@pytest.mark.gpu
def test_no_augmentation_and_no_mixing_waits_for_the_gpu(tmp_path):
    every = [*AUGMENTATIONS.keys() - {"color_jitter"}, ColorJitter(hue=0.1)]
    trained(tmp_path, "kd", 0, 0, RuntimeDevice(torch.device("cuda"), "bf16"), Unwaiting, augment=every, **RECIPE)


@pytest.mark.parametrize("name", [name for name in AUGMENTATIONS if name != "color_jitter"])
def test_no_augmentation_asks_a_tensor_for_its_values(name):
    one = in_order([name])[name]
    images = torch.randint(0, 256, (64, 3, 16, 16), dtype=torch.uint8)
    bits = draw_augmentation({name: one}, 64, 0, 0, 0).bits[name]
    with NoQuestions():
        one.apply(images.float() if one.normalized else images, bits)


def test_neither_jitter_nor_mixing_asks_a_tensor_for_its_values():
    jitter = in_order([ColorJitter(hue=0.1)])
    images = torch.randint(0, 256, (64, 3, 16, 16), dtype=torch.uint8)
    draws = draw_augmentation(jitter, 64, 0, 0, 0)
    plans = [plan_mix(Mix(name=name), 64, 16, 16, 0, 0, 0) for name in ("cutmix", "mixup")]
    with NoQuestions():
        apply_drawn(images, draws, jitter)
        for plan in plans:
            mix_inputs(images.float(), torch.zeros(64, dtype=torch.int64), plan, 64)


@pytest.mark.parametrize("views", [0, 2])
@everywhere
def test_no_step_of_an_epoch_asks_a_tensor_for_its_values(tmp_path, method, views, monkeypatch):
    watch = Watch()
    for module in ("functional.checks", "methods.memory_bank"):  # which lets tensors on a GPU pass
        monkeypatch.setattr(f"distail.{module}.check_range", lambda *given: None)
    cpu = RuntimeDevice(torch.device("cpu"), "fp32")
    settings = {} if views else recipe(method)
    trained(tmp_path, method, views, 64, cpu, lambda shown: Unasked(shown, watch), watch, **settings)


def recipe(method):
    """What is mixed cannot be remembered."""
    return {**RECIPE, "mix": None} if method == ONE_STAGE else RECIPE


def test_the_watch_sees_what_asks(tmp_path, monkeypatch):
    """The formulas look at their labels' values on a CPU, where that costs nothing."""
    watch = Watch()
    cpu = RuntimeDevice(torch.device("cpu"), "fp32")
    with pytest.raises(Asked):
        trained(tmp_path, "kd", 0, 64, cpu, lambda shown: Unasked(shown, watch), watch)
