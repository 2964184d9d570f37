"""A Ray cluster of two unequal nodes, one of which is lost on the way."""

import json
import os
import subprocess
import sys
import time

import pytest
import yaml

from helpers.comparison_cases import CONFIG

pytest.importorskip("ray")

from ray.cluster_utils import Cluster

pytestmark = [pytest.mark.integration, pytest.mark.slow]

TIMEOUT = 400
NODE = {"object_store_memory": 80_000_000, "include_dashboard": False}
RUNS = (
    "--methods",
    "ce",
    "--seeds",
    "0,1",
    "training.epochs=8",
    "training.batch_size=64",
    "trainer.checkpoint_every_steps=4",
)


@pytest.fixture
def cluster():
    """The first node has one core, and carries the comparison; it cannot be lost."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **NODE})
    yield made
    made.shutdown()


@pytest.fixture
def workplace(tmp_path):
    (tmp_path / "quick.yaml").write_text(yaml.safe_dump(CONFIG))
    return tmp_path


SEARCH = ("--trials", "8", "--seeds", "1", "data.validation=0.2", "training.epochs=4", "training.batch_size=64")


def start(folder, *arguments, verb="compare", **environment):
    words = RUNS if verb == "compare" else SEARCH
    command = [sys.executable, "-m", "distail", verb, "quick.yaml", *words, *arguments]
    return subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(process, folder, pattern, count):
    """Until so many files are there; the process must go on."""
    until = time.monotonic() + TIMEOUT
    while len(list(folder.glob(pattern))) < count:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.02)


def finish(process):
    _, told = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, told


def figures(folder, name):
    return json.loads((folder / "comparisons" / name / "comparison.json").read_text())["figures"]


@pytest.mark.parametrize(("cores", "parallel"), [(2, 1), (5, 2)])
def test_a_comparison_survives_the_loss_of_its_larger_node(cluster, workplace, cores, parallel):
    """Each run asks for as many cores as the larger node has, or for more than half of them, so that others wait."""
    larger = cluster.add_node(num_cpus=cores, **NODE)
    on_ray = start(workplace, "--engine", "ray", "--parallel", str(parallel), RAY_ADDRESS=cluster.address)
    try:
        runs = workplace / "comparisons/quick"
        wait_for(on_ray, runs, "runs/*/checkpoints/student/step-*.safetensors", 1)
        cluster.remove_node(larger, allow_graceful=False)
        finish(on_ray)
        logs = "".join(log.read_text() for log in (runs / "logs").glob("*.log"))
        assert "its node was lost" in logs
        assert f"no node with {cores if parallel == 1 else 3} cores is left" in logs
        assert "resuming after step" in logs
        local = start(workplace, "--output", "comparisons/local", "--parallel", "1")
        finish(local)
        assert figures(workplace, "quick") == figures(workplace, "local")
    finally:
        on_ray.kill()


def test_a_search_survives_the_loss_of_a_node(cluster, workplace):
    pytest.importorskip("optuna")
    other = cluster.add_node(num_cpus=2, **NODE)
    on_ray = start(workplace, "--engine", "ray", "--parallel", "2", verb="search", RAY_ADDRESS=cluster.address)
    try:
        folder = workplace / "searches/quick"
        wait_for(on_ray, folder, "runs/trial-*/metrics.jsonl", 3)
        cluster.remove_node(other, allow_graceful=False)
        finish(on_ray)
        assert "its node was lost" in "".join(log.read_text() for log in (folder / "logs").glob("*.log"))
        found = json.loads((folder / "search.json").read_text())
        assert [one["state"] for one in found["trials"] if one["state"] not in ("finished", "stopped early")] == []
        assert len(found["trials"]) == 8
        assert (folder / "best.yaml").is_file()
    finally:
        on_ray.kill()
