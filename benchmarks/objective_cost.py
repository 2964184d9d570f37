"""What an objective costs as classes and batches grow: time and memory of one step, for every method.

    python benchmarks/objective_cost.py            # writes benchmarks/objective_cost/{table.md,cost.png,cost.json}
    python benchmarks/objective_cost.py --most-logits 134217728      # on a machine with 10 GB of memory
    python benchmarks/objective_cost.py --quick    # fewer sizes and repeats, written to --output only

A step is the method's forward pass and the gradient of its total: student's logits, features, method's own parameters.
Time is the shortest of several repeats, of fewer where a step takes seconds. Memory is the largest sum of tensors alive
at once, inputs left out, counted op by op (so what a kernel takes and gives back inside is not in it).
"""

from __future__ import annotations

import argparse
import io
import json
import time
import weakref
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from distail import Method, Outputs, create_method, list_methods
from distail.training.device import configure_malloc

CLASSES = (10, 100, 1_000, 10_000, 100_000)
BATCHES = (32, 256, 1_024, 4_096)
MOST_LOGITS = 2**29  # of one (B, C): all sizes; the largest step takes 20 GB
ENOUGH_SECONDS = 20.0  # of repeats of one step
WIDTH = 64
# Below this a step costs what its calls cost, whatever the size: the slope is taken above.
SLOPE_FROM = 2**17
RECONSTRUCTION = (
    "KRDistill is our reconstruction of a paper whose equations are not public: "
    "[which choices are ours](../../docs/methods/krdistill.md)."
)
EXTRA: dict[str, dict[str, Any]] = {"krdistill": {"assignment": "identity"}}


@dataclass(frozen=True)
class Cost:
    """One measurement."""

    method: str
    classes: int
    batch: int
    seconds: float
    bytes: int

    @property
    def logits(self) -> int:
        return self.classes * self.batch


class PeakMemory(TorchDispatchMode):
    """Counts the bytes of all tensors that are made while it is on, and the most that were alive at once."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = self.peak = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):  # type: ignore[no-untyped-def]
        given = {
            leaf.untyped_storage()._cdata
            for leaf in tree_leaves((arguments, keywords))
            if isinstance(leaf, torch.Tensor)
        }
        results = function(*arguments, **(keywords or {}))
        for leaf in tree_leaves(results):
            if isinstance(leaf, torch.Tensor) and leaf.untyped_storage()._cdata not in given:
                storage = leaf.untyped_storage()
                self.alive += storage.nbytes()
                self.peak = max(self.peak, self.alive)
                weakref.finalize(storage, self._gone, storage.nbytes())
        return results

    def _gone(self, size: int) -> None:
        self.alive -= size


def step_of(method: Method, classes: int, batch: int, device: torch.device) -> Any:
    """A function that makes one step on fixed inputs."""
    generator = torch.Generator().manual_seed(0)

    def drawn(width: int, grad: bool) -> torch.Tensor:
        return torch.randn(batch, width, generator=generator).to(device).requires_grad_(grad)

    student = Outputs(drawn(classes, True), drawn(WIDTH, True))
    teacher = Outputs(drawn(classes, False), drawn(WIDTH, False))
    target = torch.randint(classes, (batch,), generator=generator).to(device)
    index = torch.arange(batch, device=device)
    wanted = [student.logits, student.features, *method.parameters()]

    def step() -> None:
        torch.autograd.grad(method(student, teacher, target, index=index).total, wanted, allow_unused=True)
        if device.type == "cuda":
            torch.cuda.synchronize()

    return step


def method_of(name: str, classes: int, device: torch.device) -> Method:
    """A method for a long tail of so many classes."""
    counts = [max(1, 1_000 // (rank + 1)) for rank in range(classes)]
    method = create_method(name, class_counts=counts, student_dim=WIDTH, teacher_dim=WIDTH, **EXTRA.get(name, {}))
    return method.to(device)


def cost_of(method: Method, classes: int, batch: int, device: torch.device, repeats: int) -> Cost:
    """The shortest of `repeats` steps, and the memory of one."""
    step = step_of(method, classes, batch, device)
    step()
    with PeakMemory() as memory:
        step()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
        if sum(seconds) > ENOUGH_SECONDS:
            break
    return Cost(method.name, classes, batch, min(seconds), memory.peak)


def slope(costs: list[Cost], what: str) -> float:
    """Of log(what) over log(B * C), for large steps: 1 is linear."""
    large = [cost for cost in costs if cost.logits >= SLOPE_FROM]
    sizes, values = [cost.logits for cost in large], [getattr(cost, what) for cost in large]
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def table(costs: list[Cost], device: str) -> str:
    """One row a method: slopes, and what one number of a (B, C) costs at the largest size."""
    lines = [
        f"{device}, torch {torch.__version__}, float32; slopes over steps of at least {SLOPE_FROM:,} logits.",
        "",
        "| method | time: slope in B*C | memory: slope in B*C | ns a logit | bytes a logit | smallest step, ms |",
        "|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(cost.method for cost in costs):
        own = [cost for cost in costs if cost.method == name]
        largest, smallest = max(own, key=lambda cost: cost.logits), min(own, key=lambda cost: cost.logits)
        lines.append(
            f"| {name} | {slope(own, 'seconds'):.2f} | {slope(own, 'bytes'):.2f} | "
            f"{largest.seconds / largest.logits * 1e9:.1f} | {largest.bytes / largest.logits:.0f} | "
            f"{smallest.seconds * 1e3:.2f} |"
        )
    if any(cost.method == "krdistill" for cost in costs):
        lines += ["", RECONSTRUCTION]
    return "\n".join(lines) + "\n"


def draw(costs: list[Cost], path: Path) -> None:
    """Time and memory over B*C, both axes logarithmic, a line a method."""
    import vl_convert
    from PIL import Image

    rows = [{"method": cost.method, "size": cost.logits, "time": cost.seconds, "bytes": cost.bytes} for cost in costs]
    largest = max(cost.logits for cost in costs)

    def panel(value: str, title: str) -> dict[str, Any]:
        top = 2 * max(row[value] for row in rows)
        ends = [{"size": size, value: top * size / largest} for size in (SLOPE_FROM, largest)]
        axis = {"type": "quantitative", "scale": {"type": "log"}, "axis": {"format": "~e", "tickCount": 8}}
        place = {"x": {"field": "size", "title": "B * C", **axis}, "y": {"field": value, "title": title, **axis}}
        color = {"field": "method", "sort": None, "title": "dashed: linear"}
        lines = {"mark": {"type": "line", "point": True}, "encoding": {**place, "color": color}}
        linear = {"mark": {"type": "line", "strokeDash": [5, 3], "color": "black"}, "encoding": place}
        return {"width": 420, "height": 330, "layer": [lines, {**linear, "data": {"values": ends}}]}

    panels = [panel("time", "seconds per step"), panel("bytes", "bytes alive at most")]
    spec = {"data": {"values": rows}, "hconcat": panels, "config": {"axis": {"gridOpacity": 0.3}}}
    with Image.open(io.BytesIO(vl_convert.vegalite_to_png(spec, scale=1.5))) as image:
        image.convert("RGB").save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--methods", default=",".join(list_methods()))
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--most-logits", type=int, default=MOST_LOGITS, help="leave larger batch * classes out")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "objective_cost")
    given = parser.parse_args()

    device = torch.device(given.device)
    if device.type == "cpu":
        configure_malloc(32)  # as a run on small images does
    limit, repeats = (2**20, 3) if given.quick else (given.most_logits, given.repeats)
    costs = []
    for name in given.methods.split(","):
        for classes in (classes for classes in CLASSES if classes * BATCHES[0] <= limit):
            method = method_of(name, classes, device)
            for batch in (batch for batch in BATCHES if classes * batch <= limit):
                cost = cost_of(method, classes, batch, device, repeats)
                costs.append(cost)
                told = f"{cost.seconds * 1e3:9.2f} ms {cost.bytes / 2**20:9.2f} MiB"
                print(f"{name:>10} C {classes:>7,} B {batch:>5,}: {told}", flush=True)
    given.output.mkdir(parents=True, exist_ok=True)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    text = table(costs, where)
    (given.output / "table.md").write_text(text)
    (given.output / "cost.json").write_text(json.dumps([asdict(cost) for cost in costs], indent=1) + "\n")
    draw(costs, given.output / "cost.png")
    print(text)


if __name__ == "__main__":
    main()
