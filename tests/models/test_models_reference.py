"""Logits equal to those of the published code with its weights copied in, wherever a clone of that code is at hand.

`DISTAIL_REFERENCE_CODE` names the folder of the clones (``owner+name/repo``); nothing of them is part of distail.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from distail.models import create_model

CLONES = Path(os.environ.get("DISTAIL_REFERENCE_CODE", "/work/.mirror"))
DRKD = ("Amik-TJ+dynamic_rectification_knowledge_distillation", "6ccf070c84f4535d1e9ddc04e2fadac0a99c69ae", "model")

REFERENCES: dict[str, tuple[str, Callable[..., nn.Module]]] = {
    "googlenet": ("googlenet", lambda code: code.GoogleNet(num_class=100)),
    "densenet121": ("densenet", lambda code: code.densenet121(num_class=100)),
    "resnext29": ("resnext", lambda code: code.CifarResNeXt(cardinality=8, depth=29, num_classes=100)),
    "mobilenetv2-full": ("mobilenetv2", lambda code: code.mobilenetv2(class_num=100)),
    "shufflenetv2-stem3": ("shufflenetv2", lambda code: code.shufflenetv2(class_num=100)),
}


def in_our_order(state: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """Both register their layers in the order of the computation, but ShuffleNet's right half before its left one."""
    places: dict[str, int] = {}
    for key in state:
        places.setdefault(key.split(".residual")[0].split(".shortcut")[0], len(places))
    left_first = sorted(
        state, key=lambda key: (places[key.split(".residual")[0].split(".shortcut")[0]], ".residual" in key)
    )
    return [state[key] for key in (left_first if any(".shortcut" in key for key in state) else state)]


@pytest.fixture(scope="module")
def reference_code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models of DR-KD's code at the commit that was read, and not whatever the clone holds now."""
    clone, commit, folder = CLONES / DRKD[0] / "repo", *DRKD[1:]
    if not clone.is_dir():
        pytest.skip(f"there is no clone of DR-KD's code at {clone}")
    place = tmp_path_factory.mktemp("reference")
    archive = subprocess.run(["git", "-C", str(clone), "archive", commit, folder], capture_output=True)
    if archive.returncode:
        pytest.skip(f"the clone of DR-KD's code lacks commit {commit}")
    subprocess.run(["tar", "-x", "-C", str(place)], input=archive.stdout, check=True)
    return place / folder


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", REFERENCES)
def test_logits_are_those_of_the_published_code(
    name: str, reference_code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, build = REFERENCES[name]
    monkeypatch.syspath_prepend(str(reference_code))
    monkeypatch.delitem(sys.modules, module, raising=False)
    torch.manual_seed(0)
    theirs = build(importlib.import_module(module)).eval()
    ours = create_model(name, num_classes=100).eval()
    with torch.no_grad():
        for layer in theirs.modules():
            if isinstance(layer, nn.BatchNorm2d):  # fresh statistics would hide a layer that is misplaced
                layer.running_mean.normal_(0, 0.1)
                layer.running_var.uniform_(0.5, 1.5)
                layer.weight.uniform_(0.5, 1.5)
                layer.bias.normal_(0, 0.1)
                layer.eps = 1e-5  # GoogLeNet's code gives a width as the eps of some layers; distail does not follow
    # A classifier may be a 1x1 convolution there.
    flat = {
        name: tensor.flatten(1) if name == "conv2.weight" else tensor for name, tensor in theirs.state_dict().items()
    }
    state = in_our_order(flat)
    assert [tuple(tensor.shape) for tensor in state] == [tuple(t.shape) for t in ours.state_dict().values()]
    ours.load_state_dict(dict(zip(ours.state_dict(), state, strict=True)))
    images_NCHW = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        expected_NC, actual_NC = theirs(images_NCHW), ours(images_NCHW)
    assert expected_NC.std() > 0.01
    torch.testing.assert_close(actual_NC, expected_NC, rtol=1e-4, atol=1e-5)
    monkeypatch.delitem(sys.modules, module, raising=False)
