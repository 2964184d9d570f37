"""Every network of the catalog against what was published, and the errors of `create_model`."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from distail.errors import ModelError
from distail.models import CosineClassifier, check_model, count_macs, count_parameters, create_model, list_models

# Parameters and MACs for 100 classes and 32x32 color images, counted on the code that published them:
# RepDistiller's, the last five on DR-KD's.
PUBLISHED = {
    "resnet8": (83892, 12507392),
    "resnet20": (278324, 40818944),
    "resnet32": (472756, 69130496),
    "resnet44": (667188, 97442048),
    "resnet56": (861620, 125753600),
    "resnet110": (1736564, 253155584),
    "resnet8x4": (1233540, 177071104),
    "resnet32x4": (7433860, 1083040768),
    "resnet50": (23705252, 1298014208),
    "wrn-16-2": (703284, 101118464),
    "wrn-40-1": (569780, 83286272),
    "wrn-40-2": (2255156, 327610880),
    "vgg8": (3965028, 96192512),
    "vgg13": (9462180, 284936192),
    "mobilenetv2": (812836, 6523648),
    "shufflenetv1": (949258, 38691456),
    "shufflenetv2": (1355528, 44504448),
    "googlenet": (6258500, 1521848320),
    "densenet121": (7048548, 888442880),
    "resnext29": (34518948, 5387358208),
    "mobilenetv2-full": (2369380, 64947264),
    "shufflenetv2-stem3": (1360896, 43675520),
}
SMALL = ("resnet8", "wrn-16-2", "vgg8", "mobilenetv2", "shufflenetv1", "shufflenetv2")
OF_DRKD = ("mobilenetv2-full", "shufflenetv2-stem3")
LARGE = ("googlenet", "densenet121", "resnext29", *OF_DRKD)
WITHOUT_SHORTCUT = ("resnet18", "wrn-40-1", "vgg13", "mobilenetv2", "shufflenetv1", "shufflenetv2", *LARGE)


@pytest.mark.parametrize("name", PUBLISHED)
def test_size_and_work_are_the_published_ones(name):
    model = create_model(name, num_classes=100)
    assert (count_parameters(model), count_macs(model, (3, 32, 32))) == PUBLISHED[name]


@pytest.mark.parametrize(
    ("name", "parameters", "macs"),
    [("resnet20", 269722, 40551040), ("resnet32", 464154, 68862592)],  # the ResNet-32 of LDAM and BKD: 0.46 M
)
def test_parameter_free_shortcuts_have_the_size_of_the_ldam_line(name, parameters, macs):
    model = create_model(name, num_classes=10, shortcut="pad")
    assert (count_parameters(model), count_macs(model, (3, 32, 32))) == (parameters, macs)


def test_resnet18_has_the_size_of_kuangliu():
    assert count_parameters(create_model("resnet18", num_classes=10)) == 11173962


def test_every_model_is_covered_above():
    assert set(list_models()) == {*PUBLISHED, "resnet18", "mlp"}
    assert list(list_models()) == sorted(list_models())


@pytest.mark.parametrize(
    ("name", "channels", "size"),
    [
        *((name, *shape) for name in SMALL for shape in ((1, 8), (1, 28), (3, 32), (4, 33), (3, 64))),
        *((name, *shape) for name in LARGE for shape in ((1, 1), (1, 13))),
    ],
)
def test_any_channels_and_any_image_size(name, channels, size):
    model = create_model(name, num_classes=7, in_channels=channels, image_size=size)
    images_NCHW = torch.randn(2, channels, size, size)
    features_ND = model.forward_features(images_NCHW)
    assert features_ND.shape == (2, model.classifier.in_features)
    assert model.eval()(images_NCHW).shape == (2, 7)


@pytest.mark.parametrize("name", SMALL)
def test_one_image_and_images_that_are_not_square(name):
    model = create_model(name, num_classes=3).eval()
    assert model(torch.randn(1, 3, 40, 24)).shape == (1, 3)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("classifier", ["linear", "cosine"])
def test_forward_is_classifier_of_features_and_reaches_every_parameter(name, classifier):
    model = create_model(name, num_classes=5, classifier=classifier)
    images_NCHW = torch.randn(4, 3, 16, 16)
    logits_NC = model(images_NCHW)
    logits_NC.square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    model.eval()
    torch.testing.assert_close(model(images_NCHW), model.classifier(model.forward_features(images_NCHW)))


@pytest.mark.parametrize("name", SMALL)
def test_channels_last_gives_the_same_logits(name):
    model = create_model(name, num_classes=5).eval()
    images_NCHW = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected_NC = model(images_NCHW)
        model.to(memory_format=torch.channels_last)
        actual_NC = model(images_NCHW.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(actual_NC, expected_NC, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", SMALL)
def test_bfloat16_autocast_trains_and_agrees_roughly(name):
    torch.manual_seed(0)
    model = create_model(name, num_classes=5)
    images_NCHW = torch.randn(8, 3, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        logits_NC = model(images_NCHW)
    logits_NC.float().logsumexp(1).mean().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


BLOCKS = {
    "residual-pad": lambda: create_model("resnet8", num_classes=3, shortcut="pad").body.stage2,
    "residual-conv": lambda: create_model("resnet8", num_classes=3).body.stage2,
    "bottleneck": lambda: create_model("resnet50", num_classes=3).body.stage1[0],
    "wide": lambda: create_model("wrn-16-2", num_classes=3).body.stage2,
    "vgg": lambda: create_model("vgg8", num_classes=3).body.stage2,
    "inverted": lambda: create_model("mobilenetv2", num_classes=3).body.stage2,
    "inverted-relu6": lambda: create_model("mobilenetv2-full", num_classes=3).body.stage2,
    "split-narrow": lambda: nn.Sequential(*create_model("shufflenetv2-stem3", num_classes=3).body.stage2[:2]),
    "grouped": lambda: nn.Sequential(*create_model("shufflenetv1", num_classes=3).body.stage2[:2]),
    "split": lambda: nn.Sequential(*create_model("shufflenetv2", num_classes=3).body.stage2[:2]),
    "dense": lambda: nn.Sequential(
        create_model("densenet121", num_classes=3).body.stage1[0],
        create_model("densenet121", num_classes=3).body.transition1[2],
    ),
    "inception": lambda: create_model("googlenet", num_classes=3).body.stage2[:2],
    "aggregated": lambda: create_model("resnext29", num_classes=3).body.stage1[0],
    "cosine": lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), CosineClassifier(6, 4)),
}


@pytest.mark.parametrize("make", BLOCKS.values(), ids=BLOCKS.keys())
def test_every_kind_of_block_traces_as_one_graph_and_leaves_its_input_alone(make):
    torch.compiler.reset()  # the kinds share code, whose recompilations are counted
    block = make().eval()
    convolution = next((module for module in block.modules() if isinstance(module, nn.Conv2d)), None)
    images_NCHW = torch.randn(2, 6 if convolution is None else convolution.in_channels, 8, 8)
    before_NCHW = images_NCHW.clone()
    expected = block(images_NCHW)
    compiled = torch.compile(block, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(images_NCHW), expected)
    assert torch.equal(images_NCHW, before_NCHW)


@pytest.mark.parametrize("name", SMALL)
def test_same_seed_same_weights(name):
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(create_model(name, num_classes=4).state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_vgg_pools_once_more_for_images_of_64():
    small, large = (create_model("vgg8", num_classes=4, image_size=size).eval() for size in (32, 64))
    large.load_state_dict(small.state_dict())
    pools = [sum(isinstance(module, nn.MaxPool2d) for module in model.modules()) for model in (small, large)]
    assert pools == [3, 4]
    assert count_macs(large, (3, 64, 64)) < count_macs(small, (3, 64, 64))


@pytest.mark.parametrize("name", ["wrn_16_2", "WRN-16-2", "MobileNetV2", "ResNet8x4"])
def test_case_and_underscores_do_not_matter(name):
    assert isinstance(create_model(name, num_classes=3), nn.Module)


def test_cosine_classifier_is_chosen_by_name():
    model = create_model("resnet8", num_classes=3, classifier="cosine")
    assert isinstance(model.classifier, CosineClassifier)
    logits_NC = model.eval()(torch.randn(4, 3, 8, 8))
    assert (logits_NC.abs() <= 30.001).all()


def test_unknown_name_names_the_nearest_and_the_other_ways():
    with pytest.raises(ModelError, match=r"'resnet23'.*'resnet2?\w+'") as caught:
        create_model("resnet23", num_classes=3)
    assert "timm:NAME" in str(caught.value)
    assert "package.module:function" in str(caught.value)


@pytest.mark.parametrize("name", WITHOUT_SHORTCUT)
def test_shortcut_is_refused_where_there_is_no_choice(name):
    with pytest.raises(ModelError, match=f"'{name}'(.|\n)*shortcut: 'pad'"):
        create_model(name, num_classes=3, shortcut="pad")


def test_default_written_out_is_no_mistake():
    assert create_model("vgg8", num_classes=3, shortcut="conv") is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shortcut": "pads"}, "'pads'.*'pad'"),
        ({"classifier": "cosin"}, "'cosin'.*'cosine'"),
        ({"num_classes": 0}, "num_classes .*at least 1.* 0"),
        ({"in_channels": 2.5}, r"in_channels .*at least 1.* 2\.5"),
        ({"image_size": -1, "num_classes": True}, "num_classes .* True.*image_size .* -1"),
    ],
)
def test_wrong_parameters_are_told(arguments, message):
    with pytest.raises(ModelError, match=message):
        create_model("resnet8", **{"num_classes": 3, **arguments})


def test_all_refused_parameters_are_told_at_once():
    with pytest.raises(ModelError) as caught:
        create_model("torch.nn:Identity", num_classes=3, shortcut="pad", classifier="cosine")
    assert "shortcut: 'pad'" in str(caught.value)
    assert "classifier: 'cosine'" in str(caught.value)


def test_checking_refuses_what_building_refuses():
    for name, options in (("resnet32", {"shortcut": "pad"}), ("wrn_16_2", {"classifier": "cosine"}), ("vgg8", {})):
        check_model(name, **options)
    for name, options in (
        ("resnet23", {}),
        ("vgg8", {"shortcut": "pad"}),
        ("resnet8", {"shortcut": "pads"}),
        ("resnet8", {"classifier": "cos"}),
        ("torch.nn:Identity", {"classifier": "cosine"}),
        ("torch.nn:Identitty", {}),
        ("no_such_module:build", {}),
    ):
        with pytest.raises(ModelError) as built:
            create_model(name, num_classes=3, **options)
        with pytest.raises(ModelError) as checked:
            check_model(name, **options)
        assert str(checked.value) == str(built.value)
