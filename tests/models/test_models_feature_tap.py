"""The feature tap on our networks, on networks of others, compiled, copied and distributed."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from collections import OrderedDict, namedtuple
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distail.errors import ModelError
from distail.models import CosineClassifier, FeatureTap, create_model
from distail.models.feature_tap import called_classifier

CLASSES = 5


def sequential() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 6), nn.ReLU(), nn.Linear(6, CLASSES))


class FunctionalHead(nn.Module):
    """Pools and flattens without modules; its layers are defined in another order than they are called."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, CLASSES)
        self.convolution = nn.Conv2d(3, 4, 3)
        self.auxiliary = nn.Linear(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        pooled = torch.flatten(F.adaptive_avg_pool2d(F.relu(self.convolution(images)), 1), 1)
        self.auxiliary(pooled)
        return self.head(F.dropout(pooled, 0.5, self.training))


def conv_head_before_pooling() -> nn.Module:
    """As SqueezeNet: classify every place, then average."""
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, CLASSES, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def conv_head_after_pooling() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, CLASSES, 1), nn.Flatten())


class Tokens(nn.Module):
    """A linear layer for each token, averaged at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(images.flatten(2).transpose(1, 2)).mean(1)


LINEAR_HEADS = {
    "resnet8": lambda: create_model("resnet8", num_classes=CLASSES),
    "resnet8-pad": lambda: create_model("resnet8", num_classes=CLASSES, shortcut="pad"),
    "mobilenetv2": lambda: create_model("mobilenetv2", num_classes=CLASSES),
    "shufflenetv2": lambda: create_model("shufflenetv2", num_classes=CLASSES),
    "sequential": sequential,
    "functional": FunctionalHead,
    "conv-before-pooling": conv_head_before_pooling,
    "conv-after-pooling": conv_head_after_pooling,
    "tokens": Tokens,
}


@pytest.mark.parametrize("make", LINEAR_HEADS.values(), ids=LINEAR_HEADS.keys())
def test_features_times_weight_are_the_logits(make):
    torch.manual_seed(0)
    tap = FeatureTap(make(), CLASSES).eval()
    outputs = tap(torch.randn(3, 3, 8, 8))
    head = tap.model.get_submodule(tap.classifier_path)
    weight_CD = head.weight.flatten(1)
    assert outputs.features.shape == (3, tap.feature_dim)
    torch.testing.assert_close(outputs.features @ weight_CD.T + head.bias, outputs.logits, atol=1e-5, rtol=1e-5)


def test_cosine_heads_too():
    tap = FeatureTap(create_model("resnet8", num_classes=CLASSES, classifier="cosine"), CLASSES).eval()
    outputs = tap(torch.randn(3, 3, 8, 8))
    assert isinstance(tap.model.get_submodule(tap.classifier_path), CosineClassifier)
    cosines_BC = F.cosine_similarity(outputs.features[:, None], tap.model.classifier.weight[None], dim=2)
    torch.testing.assert_close(30 * cosines_BC, outputs.logits, atol=1e-4, rtol=1e-4)


def test_our_features_are_forward_features_and_feature_dim_needs_no_forward():
    model = create_model("resnet8x4", num_classes=CLASSES).eval()
    tap = FeatureTap(model, CLASSES)
    assert (tap.feature_dim, tap.classifier_path) == (256, "classifier")
    images_NCHW = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(tap(images_NCHW).features, model.forward_features(images_NCHW))


def test_logits_are_those_of_the_bare_model_and_gradients_reach_it_through_both():
    model = create_model("resnet8", num_classes=CLASSES).eval()
    tap = FeatureTap(model, CLASSES)
    images_NCHW = torch.randn(2, 3, 8, 8)
    outputs = tap(images_NCHW)
    assert torch.equal(outputs.logits, model(images_NCHW))
    outputs.features.sum().backward()
    assert model.body[0][0].weight.grad is not None
    assert model.classifier.weight.grad is None


def test_state_dict_of_the_bare_model_is_untouched():
    model = create_model("resnet8", num_classes=CLASSES)
    before = list(model.state_dict())
    tap = FeatureTap(model, CLASSES)
    assert tap.model is model
    assert list(tap.model.state_dict()) == before
    assert list(tap.state_dict()) == [f"model.{key}" for key in before]
    assert {id(p) for p in tap.parameters()} == {id(p) for p in model.parameters()}


def test_no_stale_features_over_calls_and_batch_sizes():
    tap = FeatureTap(create_model("resnet8", num_classes=CLASSES), CLASSES).eval()
    first, second = torch.randn(4, 3, 8, 8), torch.randn(2, 3, 8, 8)
    outputs = [tap(first), tap(second), tap(first)]
    assert outputs[1].features.shape == (2, 64)
    torch.testing.assert_close(outputs[0].features, outputs[2].features)
    tap.model(second)
    torch.testing.assert_close(tap(first).features, outputs[0].features)


def test_nothing_is_kept_alive_after_a_call():
    tap = FeatureTap(create_model("resnet8", num_classes=CLASSES), CLASSES).eval()
    with torch.no_grad():
        outputs = tap(torch.randn(2, 3, 8, 8))
        tap.model(torch.randn(2, 3, 8, 8))
    kept = weakref.ref(outputs.features)
    del outputs
    gc.collect()
    assert kept() is None


def test_nothing_is_kept_alive_after_a_failure():
    class Failing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, CLASSES)
            self.fails = True

        def forward(self, features: Tensor) -> Tensor:
            logits = self.head(features)
            if self.fails:
                raise RuntimeError("on purpose")
            return logits

    tap = FeatureTap(Failing(), CLASSES)
    with pytest.raises(RuntimeError, match="on purpose"):
        tap(torch.ones(2, 4))
    assert (tap._capture.armed, tap._capture.seen) == (False, None)
    tap.model.fails = False
    torch.testing.assert_close(tap(torch.zeros(3, 4)).features, torch.zeros(3, 4))


def test_two_taps_on_one_model():
    model = sequential().eval()
    last = FeatureTap(model, CLASSES)
    earlier = FeatureTap(model, CLASSES, classifier="1")
    images_NCHW = torch.randn(2, 3, 8, 8)
    assert last(images_NCHW).features.shape == (2, 6)
    assert earlier(images_NCHW).features.shape == (2, 192)
    assert last(images_NCHW).features.shape == (2, 6)


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda tap: pickle.loads(pickle.dumps(tap))])
def test_copies_live_on_their_own(copier):
    tap = FeatureTap(create_model("resnet8", num_classes=CLASSES), CLASSES).eval()
    twin = copier(tap)
    with torch.no_grad():
        for parameter in tap.parameters():
            parameter.zero_()
    images_NCHW = torch.randn(2, 3, 8, 8)
    assert twin(images_NCHW).features.abs().sum() > 0
    assert tap(images_NCHW).features.abs().sum() == 0
    assert twin._capture is not tap._capture


@pytest.mark.parametrize("name", ["resnet8", "functional"])
def test_compiled_tap_gives_the_same_in_one_graph(name):
    model = FunctionalHead() if name == "functional" else create_model(name, num_classes=CLASSES)
    tap = FeatureTap(model, CLASSES).eval()
    compiled = torch.compile(tap, backend="eager", fullgraph=True)
    for batch in (3, 2, 3):
        images_NCHW = torch.randn(batch, 3, 8, 8)
        expected, actual = tap(images_NCHW), compiled(images_NCHW)
        torch.testing.assert_close(actual.logits, expected.logits)
        torch.testing.assert_close(actual.features, expected.features)
    assert tap._capture.seen is None


def test_compiled_tap_trains_as_the_plain_one():
    torch.manual_seed(0)
    taps = [FeatureTap(conv_head_before_pooling(), CLASSES)]
    taps.append(copy.deepcopy(taps[0]))
    images_NCHW = torch.randn(4, 3, 8, 8)
    for forward in (taps[0], torch.compile(taps[1], backend="aot_eager")):
        outputs = forward(images_NCHW)
        (outputs.logits.logsumexp(1).sum() + outputs.features.square().sum()).backward()
    for plain, compiled in zip(taps[0].parameters(), taps[1].parameters(), strict=True):
        torch.testing.assert_close(compiled.grad, plain.grad, atol=1e-4, rtol=1e-4)


def test_tap_around_a_compiled_model():
    model = create_model("resnet8", num_classes=CLASSES).eval()
    tap = FeatureTap(torch.compile(model, backend="eager"), CLASSES).eval()
    images_NCHW = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(tap(images_NCHW).features, model.forward_features(images_NCHW))


def test_autocast_keeps_the_dtype_of_the_classifier_input():
    tap = FeatureTap(create_model("resnet8", num_classes=CLASSES), CLASSES).eval()
    with torch.autocast("cpu", torch.bfloat16):
        outputs = tap(torch.randn(2, 3, 8, 8))
    assert outputs.logits.dtype == torch.bfloat16
    assert outputs.features.is_floating_point()


def test_distributed_data_parallel(tmp_path):
    if not torch.distributed.is_available():
        pytest.skip("this torch has no torch.distributed")
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        tap = FeatureTap(create_model("resnet8", num_classes=CLASSES), CLASSES)
        wrapped = nn.parallel.DistributedDataParallel(tap)
        outputs = wrapped(torch.randn(2, 3, 8, 8))
        assert outputs.features.shape == (2, 64)
        (outputs.logits.sum() + outputs.features.sum()).backward()
        assert all(parameter.grad is not None for parameter in tap.parameters())
        # The last holder of a group that is destroyed waits for its threads, which may wait for Python: for ever.
        del wrapped, outputs
    finally:
        torch.distributed.destroy_process_group()


def test_the_last_fitting_layer_is_taken():
    model = nn.Sequential(OrderedDict(first=nn.Linear(4, CLASSES), second=nn.Linear(CLASSES, CLASSES)))
    assert FeatureTap(model, CLASSES).classifier_path == "second"


def test_an_attribute_named_classifier_is_preferred_to_a_later_layer():
    model = nn.Module()
    model.classifier = nn.Linear(4, CLASSES)
    model.later = nn.Linear(4, CLASSES)
    assert FeatureTap(model, CLASSES).classifier_path == "classifier"


def test_get_classifier_as_timm_has_it_is_preferred():
    class Timmish(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, CLASSES)
            self.auxiliary = nn.Linear(4, CLASSES)

        def get_classifier(self) -> nn.Module:
            return self.fc

        def forward(self, images: Tensor) -> Tensor:
            return self.fc(images)

    assert FeatureTap(Timmish(), CLASSES).classifier_path == "fc"


def test_a_classifier_attribute_that_is_a_sequence_as_torchvision_has_it():
    model = nn.Module()
    model.classifier = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, CLASSES))
    assert FeatureTap(model, CLASSES).classifier_path == "classifier.2"


def test_a_bare_linear_layer_is_its_own_classifier():
    tap = FeatureTap(nn.Linear(4, CLASSES), CLASSES)
    inputs = torch.randn(2, 4)
    assert torch.equal(tap(inputs).features, inputs)


class NormedLinear(nn.Module):
    """A head of the user's own, as in LDAM's code."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, CLASSES))

    def forward(self, features: Tensor) -> Tensor:
        return F.normalize(features, dim=1) @ F.normalize(self.weight, dim=0)


def test_a_head_of_another_kind_is_named_by_path_and_width():
    model = nn.Sequential(OrderedDict(body=nn.Flatten(), head=NormedLinear()))
    with pytest.raises(ModelError, match=r"no classifier with 5 outputs.*none.*classifier='dotted.path'"):
        FeatureTap(model, CLASSES)
    with pytest.raises(ModelError, match=r"feature width of classifier 'head' .*pass feature_dim"):
        FeatureTap(model, CLASSES, classifier="head")
    tap = FeatureTap(model, CLASSES, classifier="head", feature_dim=4)
    assert tap(torch.randn(2, 4)).features.shape == (2, 4)


def test_a_wrong_feature_dim_is_told():
    model = nn.Sequential(OrderedDict(body=nn.Flatten(), head=NormedLinear()))
    with pytest.raises(ModelError, match=r"received \(2, 4\).*expected \(2, 7\)"):
        FeatureTap(model, CLASSES, classifier="head", feature_dim=7)(torch.randn(2, 4))


def test_candidates_are_named_when_no_layer_fits():
    with pytest.raises(ModelError) as caught:
        FeatureTap(sequential(), 7)
    message = str(caught.value)
    assert "no classifier with 7 outputs in Sequential" in message
    assert "'1' (6 outputs)" in message
    assert "'3' (5 outputs)" in message


def test_unknown_path_names_the_nearest():
    with pytest.raises(ModelError, match=r"'clasifier'.*'classifier'"):
        FeatureTap(create_model("resnet8", num_classes=CLASSES), CLASSES, classifier="clasifier")


def test_a_classifier_that_is_never_called_is_told():
    class Bypass(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, CLASSES)

        def forward(self, images: Tensor) -> Tensor:
            return F.linear(images, self.head.weight)

    with pytest.raises(ModelError, match="never called its classifier 'head'"):
        FeatureTap(Bypass(), CLASSES)(torch.randn(2, 4))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda logits: (logits[:, :3], logits), r"\(B, 5\).*tuple"),
        (lambda logits: logits[:, :3], r"\(B, 5\).*\(2, 3\)"),
        (lambda logits: logits[:1], r"received \(2, 4\).*expected \(1, 4\)"),
    ],
)
def test_outputs_that_are_no_logits_are_told(spoil, message):
    class Spoilt(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, CLASSES)

        def forward(self, images: Tensor) -> object:
            return spoil(self.head(images))

    with pytest.raises(ModelError, match=message):
        FeatureTap(Spoilt(), CLASSES)(torch.randn(2, 4))


class InPlace(nn.Module):
    """Normalizes its input where it stands, as torchvision's transforms do with `inplace=True`."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(F.relu(images.sub_(0.1).div_(0.3), inplace=True))


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_a_network_may_change_its_images_in_place(mode):
    tap, images = FeatureTap(InPlace(), CLASSES), torch.randn(3, 4)
    before = images.clone()
    with mode():
        first, second = tap(images), tap(images)
    assert torch.equal(images, before)
    assert torch.equal(first.logits, second.logits)


class TakesKeywords(nn.Module):
    """Changes what it is called with, in place."""

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Linear(4, CLASSES)

    def forward(self, values: Tensor, *, mask: Tensor, scale: float = 1.0) -> dict[str, Tensor]:
        return {"logits": self.score(values.mul_(mask.clamp_(0, 1)) * scale)}


def test_keyword_inputs():
    model, values, mask = TakesKeywords(), torch.randn(3, 4), torch.full((3, 4), 2.0)
    outputs = FeatureTap(model, CLASSES)(values=values, mask=mask, scale=0.5)
    assert torch.equal(outputs.features, values * 0.5)
    assert torch.equal(outputs.logits, model.score(values * 0.5))
    assert torch.equal(mask, torch.full((3, 4), 2.0))


class Several(nn.Module):
    """Gives what `make` makes of its logits."""

    def __init__(self, make) -> None:
        super().__init__()
        self.head, self.auxiliary, self.make = nn.Linear(4, CLASSES), nn.Linear(4, CLASSES), make

    def forward(self, images: Tensor) -> object:
        return self.make(self.head(images))


@pytest.mark.parametrize(
    "make",
    [
        lambda logits: (logits, logits + 1),
        lambda logits: [logits],
        lambda logits: {"loss": 0.0, "logits": logits},
        lambda logits: SimpleNamespace(logits=logits, hidden=None),
        lambda logits: namedtuple("Out", ["auxiliary", "logits"])(logits + 1, logits),
    ],
)
def test_logits_among_other_outputs(make):
    model, images = Several(make), torch.randn(3, 4)
    assert torch.equal(FeatureTap(model, CLASSES, features=False)(images).logits, model.head(images))


def test_a_second_head_that_is_never_called():
    model, images = Several(lambda logits: logits), torch.randn(3, 4)
    with pytest.raises(ModelError, match="never called its classifier 'auxiliary'"):
        FeatureTap(model, CLASSES)(images)
    path = called_classifier(model, CLASSES, images)
    assert torch.equal(FeatureTap(model, CLASSES, classifier=path)(images).features, images)


def test_without_features_any_network_will_do():
    tap = FeatureTap(nn.Sequential(nn.Flatten(), NormedLinear()), CLASSES, features=False)
    outputs = tap(torch.randn(2, 4))
    assert outputs.logits.shape == (2, CLASSES)
    assert (outputs.features, tap.feature_dim, tap.classifier_path) == (None, None, None)
