"""The runs of runs.yaml, teachers first, several at once if asked. Finished runs are kept, stopped ones resumed.

    export DISTAIL_DATA=folder-that-holds-cifar100
    python benchmarks/recipe/train.py ce distail ce@1             # these; all of runs.yaml where none is named
    python benchmarks/recipe/train.py --parallel 5 --minutes 9    # on a GPU, stopped in time

On one GPU, NVIDIA's MPS (`nvidia-cuda-mps-control -d` before, `echo quit | nvidia-cuda-mps-control` after) lets the
kernels of several runs go side by side.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
CONFIG = "configs/cifar100-lt-100-recipe.yaml"
RESNET32 = "{name: resnet32, shortcut: pad}"
PATIENCE = 20  # seconds in which a stopped run may write its checkpoint


def command(runs: dict[str, Any], name: str, seed: int, output: Path, more: list[str]) -> list[str]:
    """`distail run` of one of the runs, with more keys."""
    run = runs[name]
    words = [f"name=recipe-{name}", f"seed={seed}", f"output={folder(output, name, seed)}"]
    words += [f"student.model={run.get('student', RESNET32)}", "trainer.checkpoint_every_steps=5000"]
    taught = []
    for each in run.get("teachers", ()):
        weights = folder(output, each, seed) / "student.safetensors"
        taught.append(f"{{model: {runs[each].get('student', RESNET32)}, checkpoint: {weights}}}")
    if taught:
        words.append(f"teacher={taught[0] if len(taught) == 1 else '[' + ', '.join(taught) + ']'}")
    return [sys.executable, "-m", "distail", "run", CONFIG, *words, *run.get("keys", ()), *more]


def folder(output: Path, name: str, seed: int) -> Path:
    return output / f"recipe-{name}-seed{seed}"


def finished(output: Path, name: str, seed: int) -> bool:
    return (folder(output, name, seed) / "result.json").exists()


def main() -> None:
    runs: dict[str, Any] = yaml.safe_load((HERE / "runs.yaml").read_text())
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME[@SEED]", help=", ".join(runs))
    parser.add_argument("--seeds", default="0", help="0,1,2: of those that name none")
    parser.add_argument("--key", action="append", default=[], help="of the configuration, such as trainer.device=cuda")
    parser.add_argument("--parallel", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--output", type=Path, default=Path("runs"))
    parser.add_argument("--dry-run", action="store_true", help="print the commands")
    given = parser.parse_args()
    asked = [word.partition("@") for word in given.names or runs]
    unknown = [name for name, _, _ in asked if name not in runs]
    if unknown:
        parser.error(f"{', '.join(unknown)}: expected some of {', '.join(runs)}")
    waiting = [(name, int(one)) for name, _, seed in asked for one in (seed or given.seeds).split(",")]
    if given.dry_run:
        for name, seed in waiting:
            print(" ".join(f"'{word}'" for word in command(runs, name, seed, given.output, given.key)))
        return
    until = time.monotonic() + 60 * given.minutes
    given.output.mkdir(parents=True, exist_ok=True)
    threads = {} if given.parallel == 1 else {"OMP_NUM_THREADS": "1"}
    running: dict[tuple[str, int], subprocess.Popen[bytes]] = {}
    while (waiting or running) and time.monotonic() < until:
        for one in [one for one, process in running.items() if process.poll() is not None]:
            code = running.pop(one).returncode
            said = _said(given.output, *one) if finished(given.output, *one) else f"exit code {code}"
            print(f"{one[0]}, seed {one[1]}: {said}", flush=True)
        for one in list(waiting):
            name, seed = one
            teachers = runs[name].get("teachers", ())
            if len(running) < given.parallel and all(finished(given.output, each, seed) for each in teachers):
                waiting.remove(one)
                log = (given.output / f"recipe-{name}-seed{seed}.log").open("wb")
                words = command(runs, name, seed, given.output, given.key)
                running[one] = subprocess.Popen(words, stdout=log, stderr=log, env={**os.environ, **threads})
        if waiting and not running:
            print("not begun, since their teachers are missing:", ", ".join(f"{a}@{b}" for a, b in waiting))
            break
        time.sleep(0.5)
    for process in running.values():
        process.send_signal(signal.SIGTERM)
    for process in running.values():
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()


def _said(output: Path, name: str, seed: int) -> str:
    result = json.loads((folder(output, name, seed) / "result.json").read_text())
    own, adjusted = (result["student"][kind]["top1"] for kind in ("test", "test_adjusted"))
    return f"top-1 {own:.1f}, adjusted {adjusted:.1f}, {result['timing']['student']['seconds']:.0f} s"


if __name__ == "__main__":
    main()
