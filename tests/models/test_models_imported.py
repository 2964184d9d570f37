"""Networks from the user's own files."""

from __future__ import annotations

import sys
import textwrap

import pytest
import torch

from distail.errors import ModelError
from distail.models import check_model, create_model

SOURCE = """
import torch
from torch import nn
from helper_of_mine import WIDTH


def build(num_classes, in_channels):
    return nn.Sequential(nn.Conv2d(in_channels, WIDTH, 3), nn.BatchNorm2d(WIDTH), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(WIDTH, num_classes))


def only_classes(num_classes):
    return build(num_classes, 3)


def nothing():
    return build(10, 3)


def anything(**options):
    assert sorted(options) == ["in_channels", "num_classes"], options
    return build(**options)


class NoChannels(nn.Module):
    def __init__(self, num_classes=1000, width=4):
        super().__init__()
        self.head = nn.Linear(3, num_classes)

    def forward(self, images):
        return self.head(images.mean((2, 3)))


def swallows_and_refuses(weights=None, **options):
    return NoChannels(**options)


def swallows_and_refuses_all(**options):
    return NoChannels(10, width=4, **options) if not options else NoChannels(width=8, height=2, **options)


def sized(num_classes, in_channels, image_size, depth=3):
    return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * image_size**2, num_classes))


def lazy(num_classes):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes))


def not_a_network():
    return {"a": 1}


def failing(num_classes):
    raise KeyError("width")


def no_logits(num_classes):
    return nn.Flatten()


def breaks(num_classes):
    return nn.Linear(5, num_classes)


def frozen(num_classes):
    model = build(num_classes, 3)
    model[1].eval()
    return model


class Mine(nn.Module):
    def __init__(self, num_classes=2):
        super().__init__()
        self.head = nn.Linear(3, num_classes)

    def forward(self, images):
        return self.head(images.mean((2, 3)))


NUMBER = 3
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "networks_of_mine.py").write_text(SOURCE)
    (tmp_path / "helper_of_mine.py").write_text("WIDTH = 4\n")
    (tmp_path / "needs_more.py").write_text("import not_installed_anywhere\n")
    (tmp_path / "broken_syntax.py").write_text("def build(:\n")
    (tmp_path / "package_of_mine").mkdir()
    (tmp_path / "package_of_mine" / "nets.py").write_text("from networks_of_mine import Mine as build\n")
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.endswith("_of_mine") or name.startswith("package_of_mine"):
            del sys.modules[name]


@pytest.mark.parametrize("function", ["build", "anything", "sized"])
def test_gets_what_its_signature_takes(folder, function):
    model = create_model(f"networks_of_mine:{function}", num_classes=7, in_channels=2, image_size=12)
    assert model(torch.zeros(3, 2, 12, 12)).shape == (3, 7)


@pytest.mark.parametrize(("function", "classes"), [("only_classes", 4), ("nothing", 10), ("Mine", 6), ("lazy", 3)])
def test_takes_less_than_there_is(folder, function, classes):
    model = create_model(f"networks_of_mine:{function}", num_classes=classes)
    assert model(torch.zeros(3, 3, 32, 32)).shape == (3, classes)


@pytest.mark.parametrize(("function", "classes"), [("swallows_and_refuses", 7), ("swallows_and_refuses_all", 10)])
def test_what_is_swallowed_and_refused_is_left_out(folder, function, classes):
    model = create_model(f"networks_of_mine:{function}", num_classes=classes)
    assert model(torch.zeros(3, 3, 32, 32)).shape == (3, classes)


def test_the_first_refusal_is_told(folder):
    with pytest.raises(ModelError, match=r"'networks_of_mine:swallows_and_refuses_all'.*\(2, 7\)"):
        create_model("networks_of_mine:swallows_and_refuses_all", num_classes=7)


def test_checking_looks_but_does_not_call(folder):
    check_model("networks_of_mine:failing")
    with pytest.raises(ModelError, match="'buidl'"):
        check_model("networks_of_mine:buidl")


def test_modules_in_folders(folder):
    assert create_model("package_of_mine.nets:build", num_classes=3).head.out_features == 3


def test_search_path_is_as_before(folder):
    before = list(sys.path)
    create_model("networks_of_mine:Mine", num_classes=3)
    with pytest.raises(ModelError):
        create_model("networks_of_mine:failing", num_classes=3)
    assert sys.path == before


def test_the_trial_leaves_modes_and_statistics(folder):
    model = create_model("networks_of_mine:frozen", num_classes=3)
    assert [module.training for module in model] == [True, False, True, True, True]
    assert model[1].num_batches_tracked == 0
    assert torch.equal(model[1].running_mean, torch.zeros(4))


def test_weights_are_loaded_into_it(folder):
    from distail.models import save_weights

    first = create_model("networks_of_mine:Mine", num_classes=3)
    save_weights(first, folder / "mine.safetensors", {})
    second = create_model("networks_of_mine:Mine", num_classes=3, weights=folder / "mine.safetensors")
    assert torch.equal(first.head.weight, second.head.weight)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("networks_of_yours:build", "'networks_of_yours'.* current directory"),
        ("package_of_mine.missing:build", "'package_of_mine.missing'"),
        ("networks_of_mine:buidl", "'buidl'.*'build'"),
        ("networks_of_mine:NUMBER", "'NUMBER'"),
        ("networks_of_mine:not_a_network", "torch.nn.Module.*dict"),
        ("networks_of_mine:failing", r"KeyError: 'width' \(.*networks_of_mine.py, line \d+\)"),
        ("networks_of_mine:no_logits", r"\(2, 3\).*\(2, 3072\)"),
        ("networks_of_mine:breaks", r"\(2, 3, 32, 32\).*RuntimeError"),
        ("networks_of_mine:nothing", r"\(2, 3\).*\(2, 10\)"),
        ("needs_more:build", "'needs_more'.*not_installed_anywhere"),
        ("broken_syntax:build", "'broken_syntax'.*SyntaxError"),
        ("networks_of_mine:", "package.module:function.*'networks_of_mine:'"),
        (":build", "package.module:function"),
        ("torch.nn:Identity", "must give logits"),
    ],
)
def test_what_goes_wrong_is_told(folder, path, message):
    with pytest.raises(ModelError, match=message):
        create_model(path, num_classes=3)


def test_a_later_working_directory_counts(folder, tmp_path_factory, monkeypatch):
    other = tmp_path_factory.mktemp("other")
    (other / "later_of_mine.py").write_text(
        textwrap.dedent("""
        from torch import nn
        def build(num_classes):
            return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, num_classes))
        """)
    )
    with pytest.raises(ModelError, match="no module"):
        create_model("later_of_mine:build", num_classes=3)
    monkeypatch.chdir(other)
    assert create_model("later_of_mine:build", num_classes=3) is not None


def test_no_code_is_imported_where_it_is_refused(tmp_path, monkeypatch):
    (tmp_path / "evil_net.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DISTAIL_NO_CODE", "1")
    for use in (check_model, lambda name: create_model(name, num_classes=2)):
        with pytest.raises(ModelError, match=r"'evil_net:build'.*--no-code"):
            use("evil_net:build")
    check_model("resnet8")
