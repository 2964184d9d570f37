"""What must work wherever Python runs: the import, a short run with its page, and mistakes that are told as such.

CI runs it on macOS and Windows after `pip install -c constraints.txt .`; it takes about a minute and writes into a
temporary folder.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "run.py"


def distail(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "distail", *arguments]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, encoding="utf-8", errors="replace", timeout=600
    )


def expect(done: subprocess.CompletedProcess[str], code: int, said: str) -> None:
    told = done.stdout + done.stderr
    if done.returncode != code or said not in told:
        raise SystemExit(f"{done.args}: exit code {done.returncode}, expected {code} and {said!r} in:\n{told}")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        expect(distail("--help", folder=folder), 0, "demo")
        expect(distail("methods", "bkd", folder=folder), 0, "2104.10510")

        example = subprocess.run([sys.executable, str(EXAMPLE)], cwd=folder, timeout=600)
        if example.returncode != 0:
            raise SystemExit(f"{EXAMPLE.name} ended with exit code {example.returncode}")
        run = folder / "runs" / "from-python-seed0"
        missing = [file for file in ("result.json", "report.html", "student.safetensors") if not (run / file).is_file()]
        if missing:
            raise SystemExit(f"{run.name} lacks {', '.join(missing)}")
        # A finished run is returned at once; one with other settings is refused with the key that differs.
        config = str(run / "config.yaml")
        expect(distail("run", config, folder=folder), 0, "from-python")
        expect(distail("run", config, "training.epochs=3", folder=folder), 2, "training.epochs")
        expect(distail("run", config, "training.epoch=3", folder=folder), 2, "epochs")
        expect(distail("run", "nowhere.yaml", folder=folder), 2, "nowhere.yaml")
        expect(distail("evaluate", str(run), folder=folder), 0, "result.json matches")
    print("smoke test passed on", sys.platform, sys.version.split()[0])


if __name__ == "__main__":
    main()
