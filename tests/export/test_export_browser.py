"""examples/browser/ in headless Chromium, with onnxruntime-web from npm: the answers of the student."""

from __future__ import annotations

import shutil
import subprocess
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

import distail
from helpers.browser import MARKS, PATIENCE_MS, launched

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "browser"

pytestmark = [
    *MARKS,
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("npm") is None, reason="no npm on this machine"),
]
pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")


class Quiet(SimpleHTTPRequestHandler):
    extensions_map = {**SimpleHTTPRequestHandler.extensions_map, ".mjs": "text/javascript", ".wasm": "application/wasm"}  # noqa: RUF012

    def log_message(self, *arguments):
        pass


@pytest.fixture
def address(tmp_path, exported):
    site = tmp_path / "site"
    shutil.copytree(EXAMPLE, site, ignore=shutil.ignore_patterns("node_modules"))
    for name in ("student.onnx", "export.json"):
        shutil.copy(exported[0] / name, site)
    subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--silent"], cwd=site, check=True, timeout=300)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/index.html"
        server.shutdown()


@pytest.mark.timeout(900)
def test_a_browser_gives_the_answers_of_the_student(address, finished, photos):
    paths = sorted((photos / "test").glob("*/1*.png"))
    with launched() as browser:
        page = browser.new_page()
        page.set_default_timeout(PATIENCE_MS)
        complaints = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(address)
        page.wait_for_selector("body[data-ready]", state="attached")
        page.set_input_files("#images", [str(path) for path in paths])
        page.wait_for_selector(f"#answers[data-done='{len(paths)}']", state="attached")
        rows = [row.split("\t") for row in page.locator("#answers tr").all_inner_texts()]
    expected = distail.load_student(finished.folder).predict(paths)
    assert complaints == []
    assert [name for _, name, _ in rows] == [answer.name for answer in expected]
    assert all(abs(float(p) - answer.probability) < 0.02 for (_, _, p), answer in zip(rows, expected, strict=True))
