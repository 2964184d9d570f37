"""What a Ray cluster's runs ask for, and what becomes of them as its nodes are lost; Ray itself is made up."""

import sys
import types

import pytest

from distail.compare.engine_config import EngineConfig
from distail.compare.ray_cluster import MOST_LOSSES, RayCluster, share_of_nodes


class RayError(Exception): ...


class NodeDiedError(RayError): ...


class OutOfMemoryError(RayError): ...


class Ray(types.ModuleType):
    """A cluster of some nodes; `died` says of which error a task has ended, `tasks` what each asked for."""

    def __init__(self, nodes):
        super().__init__("ray")
        self.alive, self.tasks, self.died, self.cancelled = nodes, [], {}, []
        self.exceptions = types.SimpleNamespace(RayError=RayError)

    def is_initialized(self):
        return True

    def nodes(self):
        return [{"Alive": True, "Resources": each} for each in self.alive] + [
            {"Alive": False, "Resources": {"CPU": 99}}
        ]

    def remote(self, **options):
        assert options == {"max_retries": 0}
        return lambda function: self

    def options(self, num_cpus, num_gpus, runtime_env):
        def begin(spec):
            self.tasks.append((num_cpus, num_gpus))
            return len(self.tasks) - 1

        return types.SimpleNamespace(remote=begin)

    def wait(self, tasks, num_returns, timeout):
        return [task for task in tasks if task in self.died], []

    def get(self, task):
        if self.died[task] is not None:
            raise self.died[task]

    def cancel(self, task, force=False):
        self.cancelled.append(task)


@pytest.fixture
def cluster(monkeypatch):
    def make(*nodes):
        ray = Ray(list(nodes))
        monkeypatch.setitem(sys.modules, "ray", ray)
        return ray

    return make


def spec(tmp_path, name="a"):
    return {"name": name, "log": str(tmp_path / f"{name}.log")}


def test_a_run_whose_node_is_lost_begins_again_with_what_is_left(cluster, tmp_path):
    ray = cluster({"CPU": 2}, {"CPU": 8})
    engine = RayCluster(EngineConfig(1, None, "cpu"))
    engine.start(spec(tmp_path))
    ray.alive = [{"CPU": 2}]
    ray.died[0] = NodeDiedError("gone")
    assert engine.ended() == {}
    ray.died[1] = None
    assert engine.ended() == {"a": None}
    assert [cores for cores, _ in ray.tasks] == [8, 2]
    assert "restarts" in (tmp_path / "a.log").read_text()


def test_a_run_that_loses_each_process_fails_in_the_end(cluster, tmp_path):
    ray = cluster({"CPU": 2})
    engine = RayCluster(EngineConfig(1, None, "cpu"))
    engine.start(spec(tmp_path))
    for loss in range(MOST_LOSSES):
        ray.died[loss] = NodeDiedError("gone")
        assert engine.ended() == {}
    ray.died[MOST_LOSSES] = NodeDiedError("gone for good")
    assert "gone for good" in engine.ended()["a"]


def test_what_a_run_dies_of_by_itself_is_told_at_once(cluster, tmp_path):
    ray = cluster({"CPU": 2})
    engine = RayCluster(EngineConfig(1, None, "cpu"))
    engine.start(spec(tmp_path))
    ray.died[0] = OutOfMemoryError("too much")
    assert "OutOfMemoryError: too much" in engine.ended()["a"]
    assert len(ray.tasks) == 1


def test_a_run_that_waits_for_a_lost_node_asks_for_less(cluster, tmp_path):
    ray = cluster({"CPU": 1}, {"CPU": 5})
    engine = RayCluster(EngineConfig(4, 2, "cpu"))
    engine.start(spec(tmp_path, "a"))
    engine.start(spec(tmp_path, "b"))  # for which no room is, as long as the first runs
    ray.alive = [{"CPU": 1}]
    ray.died[0] = None
    assert engine.ended() == {"a": None}
    assert ray.cancelled == [1]
    assert [cores for cores, _ in ray.tasks] == [3, 3, 0.5]
    ray.died[2] = None
    assert engine.ended() == {"b": None}


def test_a_run_that_was_asked_to_stop_does_not_begin_again(cluster, tmp_path):
    ray = cluster({"CPU": 2})
    engine = RayCluster(EngineConfig(1, None, "cpu"))
    engine.start(spec(tmp_path))
    engine.stop()
    ray.died[0] = NodeDiedError("gone")
    assert "NodeDiedError" in engine.ended()["a"]
    assert len(ray.tasks) == 1


def test_without_a_node_that_could_carry_it_a_run_is_refused_and_not_waited_for(cluster, tmp_path):
    ray = cluster({"CPU": 4, "GPU": 2}, {"CPU": 8})
    engine = RayCluster(EngineConfig(9, None, "auto"))
    assert engine.parallel == 2
    engine.start(spec(tmp_path))
    assert ray.tasks == [(2, 1.0)]
    ray.alive = [{"CPU": 8}]
    assert "no node with a GPU" in engine.ended()["a"]


@pytest.mark.parametrize("parallel", [1, 2, 3, 7, 40])
@pytest.mark.parametrize("on_gpu", [False, True])
def test_what_is_asked_for_is_on_one_node(parallel, on_gpu):
    for nodes in ([{"CPU": 1}, {"CPU": 2}], [{"CPU": 1, "GPU": 4}, {"CPU": 64}], [{"CPU": 0}, {"CPU": 3, "GPU": 1}]):
        asks = share_of_nodes(nodes, parallel, on_gpu=on_gpu)
        able = [node for node in nodes if not on_gpu or node.get("GPU")]
        assert (asks is None) == (not able)
        assert asks is None or any(all(node.get(kind, 0) >= asks[kind] for kind in asks) for node in nodes)
