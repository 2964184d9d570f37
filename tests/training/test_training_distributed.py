"""A process alone, and what is known without a launcher; `test_training_launched.py` has two that share a run."""

import pickle
import signal

import pytest
import torch
from accelerate import PartialState
from torch import nn

from distail.config.schema import Model
from distail.data.prepare import prepare_data
from distail.errors import ConfigError, ModelError, TrainingError
from distail.methods.presets import create_method
from distail.models import FeatureTap
from distail.runner.networks import build_network
from distail.training.device import RuntimeDevice, select_device
from distail.training.distributed import SINGLE_PROCESS, Processes, process_group, tells_of_a_lost_process
from distail.training.signals import stop_requests
from distail.training.step import TrainingStep, convert_sync_batch_norm, sync_batch_norm_statistics

pytestmark = pytest.mark.integration


def failing():
    raise ConfigError("no")


@pytest.mark.parametrize(
    "share", [SINGLE_PROCESS.gather_errors, SINGLE_PROCESS.broadcast_from_main, SINGLE_PROCESS.local_main_first]
)
def test_a_process_alone_just_does_the_work(share):
    assert share(lambda: 3) == 3
    with pytest.raises(ConfigError, match="no"):
        share(failing)


def test_a_process_alone_agrees_with_itself():
    value = torch.tensor([1.0, 2.0])
    assert SINGLE_PROCESS.lowest([3, -1]) == [3, -1]
    assert SINGLE_PROCESS.sum(value) is value
    SINGLE_PROCESS.average([value])
    assert value.tolist() == [1.0, 2.0]
    layer = nn.Linear(2, 2)
    before = layer.weight.clone()
    SINGLE_PROCESS.broadcast_parameters(layer)
    assert torch.equal(layer.weight, before)


def test_without_a_launcher_one_is_alone():
    with process_group("cpu", 1) as found:
        assert found is SINGLE_PROCESS


def test_an_error_of_ones_own_is_not_taken_for_a_lost_process():
    with pytest.raises(RuntimeError, match=r"^Connection closed by peer$"), process_group("cpu", 1):
        raise RuntimeError("Connection closed by peer")


@pytest.mark.parametrize(
    ("said", "lost"),
    [
        ("[/gloo/transport/tcp/pair.cc:537] Read error [127.0.0.1]:39146: Connection reset by peer", True),
        ("[..gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 10000ms for recv operation", True),
        ("NCCL communicator was aborted on rank 1.", True),
        ("CUDA out of memory. Tried to allocate 2 GiB", False),
        ("CUDA error: the launch timed out and was terminated", False),
        ("Duplicate GPU detected : rank 0 and rank 1 both on CUDA device 1000, NCCL error: invalid usage", False),
        ('Using RTX 4000 series doesn\'t support faster communication. Set `NCCL_P2P_DISABLE="1"`', False),
        ("NCCL watchdog: remote process exited or there was a network error", True),
        ("mat1 and mat2 shapes cannot be multiplied", False),
    ],
)
def test_what_tells_of_a_lost_process(said, lost):
    assert tells_of_a_lost_process(RuntimeError(said)) is lost


def test_an_error_that_cannot_be_sent_is_sent_in_words(monkeypatch):
    class Local(Exception):
        pass

    def fail():
        raise Local("of this function")

    def gather(errors, error, group):
        errors[0] = pickle.loads(pickle.dumps(error))

    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    with pytest.raises(TrainingError, match="Local: of this function"):
        Processes(0, 2).gather_errors(fail)


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match=r"4 processes.* 2 GPUs.*--nproc-per-node 2"), process_group("auto", 1):
        raise AssertionError("joined")
    with process_group("cpu", 1) as found:
        assert found is SINGLE_PROCESS


def test_a_run_on_the_cpu_does_not_keep_the_next_one_there(monkeypatch):
    assert select_device("cpu", "fp32", 8).device == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert select_device("auto", "fp32", 8).device == torch.device("cuda", 0)
    assert select_device("auto", "fp32", 8, Processes(3, 4, local_rank=1)).device == torch.device("cuda", 1)
    assert select_device("cpu", "fp32", 8).device == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert select_device("auto", "fp32", 8).device == torch.device("mps")


def test_a_run_on_the_gpu_does_not_keep_the_next_one_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setitem(PartialState(cpu=True)._shared_state, "device", torch.device("cuda", 0))
    for device in ("auto", "cpu"):
        assert select_device(device, "fp32", 8).device == torch.device("cpu")


def test_processes_that_talk_by_nccl_cannot_go_on_on_the_cpu(monkeypatch):
    monkeypatch.setitem(PartialState(cpu=True)._shared_state, "num_processes", 2)
    monkeypatch.setattr(torch.distributed, "get_backend", lambda: "nccl")
    with pytest.raises(ConfigError, match=r"'cpu', but these processes have begun on GPUs"), process_group("cpu", 1):
        raise AssertionError("joined")


def test_one_device_for_several_processes_is_refused():
    with pytest.raises(ConfigError, match=r"'cpu:0' is one device, and there are 2 processes"):
        select_device("cpu:0", "fp32", 8, Processes(0, 2))


def sent_through(monkeypatch, work):
    """The tensors that `work(Processes)` hands to the group of all processes, which on GPUs knows no CPU."""
    sent = []
    monkeypatch.setattr(torch.distributed, "broadcast", lambda value, src: sent.append(value))
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda value: sent.append(value))
    work(Processes(0, 2))
    return sent


@pytest.mark.parametrize(("name", "options"), [("krdistill", {}), ("ipwd", {"teacher": "previous_epoch"})])
def test_what_processes_take_from_the_main_one_lies_on_the_modules_device(monkeypatch, name, options):
    """A method's extra state never leaves the CPU. "meta" stands for the GPU that is not here."""
    method = create_method(name, class_counts=(3, 2), student_dim=2, teacher_dim=4, **options)
    runtime = RuntimeDevice(torch.device("meta"), "fp32")
    step = TrainingStep(FeatureTap(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), 2), method, runtime).to("meta")
    sent = sent_through(monkeypatch, lambda two: two.broadcast_parameters(step))
    assert {value.device.type for value in sent} == {"meta"}
    stored = {name: value for name, value in step.state_dict().items() if not name.endswith("_extra_state")}
    assert len(stored) < len(step.state_dict())
    assert sorted(value.shape for value in sent) == sorted(value.shape for value in stored.values())


def test_what_is_summed_is_contiguous_as_nccl_wants_it(monkeypatch):
    (sent,) = sent_through(monkeypatch, lambda two: two.sum(torch.arange(6.0).view(2, 3).t()))
    assert sent.is_contiguous()
    assert sent.tolist() == [[0, 3], [1, 4], [2, 5]]


def test_only_running_statistics_are_averaged():
    class Halves(Processes):
        def sum(self, value):
            return value + 1

    network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.BatchNorm1d(3, track_running_stats=False))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    sync_batch_norm_statistics(network, Halves(0, 2))
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"1.running_mean"}  # (0 + 1) / 2; the variance (1 + 1) / 2 is what it was
    assert network[1].running_mean.tolist() == [0.5] * 3


def test_layers_that_do_more_than_normalize_are_not_replaced_by_some_that_do_not():
    class BatchNormAct2d(nn.BatchNorm2d):
        def forward(self, maps):
            return super().forward(maps).relu()

    assert isinstance(convert_sync_batch_norm(nn.Sequential(nn.BatchNorm2d(2)))[0], nn.SyncBatchNorm)
    with pytest.raises(ModelError, match=r"does not support BatchNormAct2d of this network"):
        convert_sync_batch_norm(nn.Sequential(nn.Conv2d(3, 2, 1), BatchNormAct2d(2)))


def test_synchronized_batch_norm_keeps_names_and_features():
    """What needs two GPUs to train is built here."""
    data = prepare_data("digits")
    plain, synchronized = (build_network(Model(name="resnet8"), "linear", data) for _ in range(2))
    synchronized.model = convert_sync_batch_norm(synchronized.model)
    assert sum(isinstance(module, nn.SyncBatchNorm) for module in synchronized.modules()) == 9
    assert not any(isinstance(module, nn.SyncBatchNorm) for module in plain.modules())
    synchronized.load_state_dict(plain.state_dict())
    images = torch.randn(3, 1, 8, 8)
    for one, other in zip(*(vars(tap.eval()(images)).values() for tap in (plain, synchronized)), strict=True):
        torch.testing.assert_close(one, other)


def test_signals_to_several_processes_act_at_no_time_and_the_first_counts():
    with stop_requests() as outer:
        with stop_requests(patient=True) as request:
            with request.at_once():
                signal.raise_signal(signal.SIGTERM)
                signal.raise_signal(signal.SIGINT)
            assert request.signal_number == signal.SIGTERM
        assert outer.signal_number == signal.SIGTERM, "handed on, since the work went on to its end"
        outer.signal_number = None
