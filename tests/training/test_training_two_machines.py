"""One run over two machines: two hosts on one cable, made of network namespaces, that share no folder."""

import json
import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

from helpers.class_folders import NAMES, write_folders
from helpers.launched_runs import NETWORKS, alone, experiment, launched_environment

ADDRESSES = {"first": "10.219.7.1", "second": "10.219.7.2"}
TIMEOUT = 240

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.skipif(
        sys.platform != "linux" or os.geteuid() != 0 or shutil.which("ip") is None,
        reason="needs Linux, root and iproute2 to make hosts",
    ),
]


class Host:
    """A network of its own, named so that no other test run has it."""

    def __init__(self, role, folder):
        self.role, self.folder = role, folder
        self.namespace = f"distail-{os.getpid()}-{role}"
        self.wire = f"d{os.getpid()}{role[0]}"
        folder.mkdir()
        (folder / "networks.py").write_text(NETWORKS)

    def inside(self, *command):
        return ["ip", "netns", "exec", self.namespace, *command]

    def start(self, processes, config, **changes):
        """Start this machine's part of the run; what it says goes to `log`."""
        first = self.role == "first"
        rendezvous = ["--rdzv-backend", "c10d", "--rdzv-id", "two-machines", "--rdzv-conf", f"is_host={first}"]
        rendezvous += ["--rdzv-endpoint", f"{ADDRESSES['first']}:29500", "--local-addr", ADDRESSES[self.role]]
        launcher = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2"]
        launcher += ["--nproc-per-node", str(processes), *rendezvous, "-m", "distail", "run", str(config)]
        # Machines have names of their own, by which the launcher tells them apart.
        named = ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', self.role, *launcher]
        environment = {
            **launched_environment(self.folder),
            "GLOO_SOCKET_IFNAME": self.wire,
            "DISTAIL_CACHE": str(self.folder / "cache"),
            **changes,
        }
        with (self.folder / "log").open("w") as log:
            return subprocess.Popen(
                self.inside(*named), cwd=self.folder, env=environment, stdout=log, stderr=subprocess.STDOUT
            )

    @property
    def log(self):
        return (self.folder / "log").read_text()

    def processes(self):
        found = subprocess.run(["ip", "netns", "pids", self.namespace], capture_output=True, text=True, check=False)
        return found.stdout.split()

    def switch_off(self):
        for process in self.processes():
            subprocess.run(["kill", "-9", process], check=False, stderr=subprocess.DEVNULL)


@pytest.fixture
def hosts(tmp_path):
    first, second = (Host(role, tmp_path / role) for role in ADDRESSES)
    try:
        for host in (first, second):
            subprocess.run(["ip", "netns", "add", host.namespace], check=True)
        cable = ["ip", "link", "add", first.wire, "netns", first.namespace, "type", "veth"]
        subprocess.run([*cable, "peer", "name", second.wire, "netns", second.namespace], check=True)
        for host in (first, second):
            for command in (
                ["addr", "add", f"{ADDRESSES[host.role]}/24", "dev", host.wire],
                ["link", "set", host.wire, "up"],
                ["link", "set", "lo", "up"],
            ):
                subprocess.run(host.inside("ip", *command), check=True)
        yield first, second
    finally:
        for host in (first, second):
            host.switch_off()
            subprocess.run(["ip", "netns", "del", host.namespace], check=False)


def begin(hosts, processes=(2, 1), **changes):
    """The same command on both, with two processes on the first machine, and one on the second."""
    for host in hosts:
        config = experiment("run", **changes)
        (host.folder / "config.yaml").write_text(json.dumps(config))
    return [host.start(count, "config.yaml") for host, count in zip(hosts, processes, strict=True)]


def write_answers(photos, path):
    """What some teacher said of each image, by its path."""
    names = sorted(str(image.relative_to(photos)) for image in photos.rglob("*.png"))
    np.savez(path, probabilities=np.random.default_rng(0).dirichlet(np.ones(len(NAMES)), len(names)), path=names)


def last_row(folder):
    return json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])


def test_two_machines_train_what_one_process_trains(hosts, tmp_path, monkeypatch):
    first, second = hosts
    ends = [machine.wait(TIMEOUT) for machine in begin(hosts, method="ipwd")]
    assert ends == [0, 0], first.log + second.log
    assert not (second.folder / "run").exists()
    monkeypatch.chdir(first.folder)
    monkeypatch.syspath_prepend(first.folder)
    alone(experiment(tmp_path / "alone", method="ipwd"))
    there, here = last_row(first.folder / "run"), last_row(tmp_path / "alone")
    assert there["loss"] == pytest.approx(here["loss"], rel=1e-5)
    recalls = [row["validation"]["per_class_recall"] for row in (there, here)]
    assert recalls[0] == pytest.approx(recalls[1])


def test_streamed_images_and_stored_answers_on_two_machines_give_the_bits_of_two_processes(hosts):
    """Each machine has files of its own; its process decodes its own slices of each batch, and no others."""
    data = {"name": "folder", "root": "photos", "image_size": 8, "validation": 0.1, "augment": ["crop"]}
    data |= {"stream": "always", "workers": 1}
    changes = {"data": data, "teacher": {"logits": "answers.npz"}, "method": "bkd"}
    for host in hosts:
        write_answers(write_folders(host.folder / "photos"), host.folder / "answers.npz")
    first, second = hosts
    ends = [machine.wait(TIMEOUT) for machine in begin(hosts, (1, 1), **changes)]
    assert ends == [0, 0], first.log + second.log
    (first.folder / "alone.yaml").write_text(json.dumps(experiment("alone", **changes)))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    alone = subprocess.run(
        [*launcher, "-m", "distail", "run", "alone.yaml"],
        cwd=first.folder,
        env={**launched_environment(first.folder), "DISTAIL_CACHE": str(first.folder / "cache")},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert alone.returncode == 0, alone.stderr
    for name in ("student.safetensors", "predictions.safetensors"):
        assert (first.folder / "run" / name).read_bytes() == (first.folder / "alone" / name).read_bytes()


@pytest.mark.parametrize("how", ["off", "unplugged"])
def test_a_machine_that_is_gone_ends_the_run_with_a_checkpoint(hosts, how):
    first, second = hosts
    trainer = {"device": "cpu", "precision": "fp32", "checkpoint_every_steps": 5, "process_timeout_minutes": 0.1}
    machines = begin(hosts, method="kd", teacher="networks:Plain", training={"epochs": 10_000}, trainer=trainer)
    checkpoints = first.folder / "run" / "checkpoints"
    waited = time.monotonic() + TIMEOUT
    while not list(checkpoints.glob("*/step-*.safetensors")):
        assert time.monotonic() < waited, first.log + second.log
        assert machines[0].poll() is None, first.log + second.log
        time.sleep(0.2)
    if how == "off":
        second.switch_off()
    else:
        subprocess.run(second.inside("ip", "link", "set", second.wire, "down"), check=True)
    assert machines[0].wait(TIMEOUT) != 0
    assert "another process of this run has died, or did not respond" in first.log
    assert "The same command resumes from the newest checkpoint" in first.log
    again = subprocess.run(
        ["timeout", "--signal", "INT", "20", sys.executable, "-m", "distail", "run", "config.yaml"],
        cwd=first.folder,
        env=launched_environment(first.folder),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "resuming after step" in again.stdout + again.stderr
