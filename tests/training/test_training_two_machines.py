"""One run over two machines: two hosts on one cable, made of network namespaces, that share no folder."""

import json
import os
import shutil
import subprocess
import sys
import time

import pytest

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


def begin(hosts, **changes):
    """The same command on both: two processes on the first machine, one on the second."""
    for host in hosts:
        config = experiment("run", **changes)
        (host.folder / "config.yaml").write_text(json.dumps(config))
    return [host.start(count, "config.yaml") for host, count in zip(hosts, (2, 1), strict=True)]


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
    assert "another process of this run has died, or was silent" in first.log
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
