"""The bootstrap against plain loops: every metric of a drawn test set is what evaluation itself says of it."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from distail.errors import DataError
from distail.evaluation import bootstrap
from distail.evaluation.bootstrap import ImageFacts, Resampler, bootstrap_metrics, image_facts, interval_and_p
from distail.evaluation.groups import classes_by_group, thirds
from distail.evaluation.metrics import METRICS, OfRecalls, evaluate_predictions, metric_at


def made(images=60, classes=5, runs=2, seed=0):
    random = np.random.default_rng(seed)
    target_N = np.concatenate([np.arange(classes), random.integers(0, classes, images - classes)])
    random.shuffle(target_N)
    counts = sorted(random.integers(1, 300, classes).tolist(), reverse=True)
    logits = [
        torch.from_numpy(random.normal(size=(images, classes)) + 1.5 * np.eye(classes)[target_N]) for _ in range(runs)
    ]
    return target_N, counts, logits


def facts(target_N, counts, logits):
    return [image_facts(one, torch.from_numpy(target_N), counts) for one in logits]


def weights_of(drawn_N, target_N):
    """How often each image was drawn, in the order of `Resampler`, one column."""
    order = np.argsort(target_N, kind="stable")
    return np.bincount(drawn_N, minlength=len(target_N))[order].astype(float)[:, None]


@given(st.integers(0, 10_000), st.integers(2, 7))
def test_every_metric_of_a_drawn_test_set_is_what_evaluation_says_of_it(seed, classes):
    target_N, counts, logits = made(seed=seed, classes=classes)
    random = np.random.default_rng(seed)
    # Every class is drawn at least once here: what to do with a class that vanishes is another test's matter.
    drawn_N = np.concatenate([np.flatnonzero(target_N == c)[:1] for c in range(classes)] + [random.integers(0, 60, 55)])
    drawn_N = drawn_N[:60]
    weights = weights_of(drawn_N, target_N) * (60 / len(drawn_N))
    metrics = Resampler(target_N, counts, facts(target_N, counts, logits)).metrics(weights, weights)
    sizes_C = np.bincount(target_N, minlength=classes)
    members = classes_by_group(counts)
    for run, one in enumerate(logits):
        observed = evaluate_predictions(one, torch.from_numpy(target_N), counts)
        expected = evaluate_predictions(one[drawn_N], torch.from_numpy(target_N[drawn_N]), counts)
        moved_C = np.subtract(expected["per_class_recall"], observed["per_class_recall"])
        for path, metric in METRICS.items():
            if metric.multi_label:
                continue
            if path in ("top1", "ece"):
                assert metrics[path][0, run] == pytest.approx(metric_at(expected, path), abs=1e-9), path
                continue
            classes = list(members.get(path, range(len(counts))))
            assert (path in metrics) == bool(classes and sizes_C[classes].min() >= 3), path
            if path in metrics and isinstance(metric.source, OfRecalls) and metric.source.widened:
                sizes = sizes_C[classes]
                student = stats.t.ppf(0.975, sizes.sum() - len(sizes)) / 1.959963984540054
                widened = moved_C[classes] * np.sqrt(sizes / (sizes - 1)) * student
                assert metrics[path][0, run] == pytest.approx(metric_at(observed, path) + widened.mean(), abs=1e-9)
            elif path in metrics:
                assert metrics[path][0, run] == pytest.approx(metric_at(expected, path), abs=1e-9), path


def test_means_over_classes_are_those_that_are_widened():
    widened = {path for path, one in METRICS.items() if isinstance(one.source, OfRecalls) and one.source.widened}
    assert widened == {"balanced_accuracy", *classes_by_group([300, 50, 5])}


@pytest.mark.parametrize("images", [[2] * 6, [3] * 6, [5] * 6, [36] * 6 + [1], [36] * 6 + [2]])
def test_two_models_that_are_equally_good_rarely_differ_by_more_than_noise(images):
    """The share of p below 0.05 stays near it, where plain draws within classes gave three times that for 2 images,
    and a class of one image, drawn the same every time, decided which class is the worst."""
    random, counts, trials = np.random.default_rng(0), [9] * len(images), 150
    target_N = np.repeat(np.arange(len(images)), images)
    alarms = Counter()
    for trial in range(trials):
        runs = [
            ImageFacts(
                np.where(random.random(len(target_N)) < 0.5, target_N, (target_N + 1) % len(images)),
                random.uniform(0.3, 1.0, len(target_N)),
            )
            for _ in range(2)
        ]
        for name, values in bootstrap_metrics(target_N, counts, runs, resamples=400, seed=trial).items():
            alarms[name] += interval_and_p(values[:, 0] - values[:, 1])[1] < 0.05
    assert {"top1", "ece"} <= set(alarms)
    assert ("worst_class" in alarms) == (min(images) > 2)
    # Of a dozen images the spread of macro F1, which is drawn over all of them, is known a little worse.
    most = {"macro_f1": 0.13} if max(images) == 2 else {}
    assert not {name: count for name, count in alarms.items() if count / trials >= most.get(name, 0.09)}


def test_calibration_errors_are_centered_on_what_was_observed():
    """Drawing again adds noise, and noise in a bin counts as error: undisturbed draws lie above what was drawn from."""
    target_N, counts, logits = made(images=300)
    values = bootstrap_metrics(target_N, counts, facts(target_N, counts, logits), resamples=200)["ece"]
    for run, one in enumerate(logits):
        observed = evaluate_predictions(one, torch.from_numpy(target_N), counts)["ece"]
        assert values[:, run].mean() == pytest.approx(observed)


def test_what_a_class_of_one_image_says_is_not_known():
    target_N = np.array([0, 0, 0, 1, 1, 1, 2])
    right, wrong = (ImageFacts(np.array([0, 0, 1, 1, 1, 0, last]), np.ones(7)) for last in (2, 0))
    values = bootstrap_metrics(target_N, [200, 50, 5], [right, wrong], resamples=50)
    unknown = {"balanced_accuracy", "worst_class", "macro_f1", "groups.thirds.tail", "groups.shots.few"}
    assert not unknown & set(values)
    assert {"top1", "groups.thirds.head", "groups.shots.medium"} <= set(values)


def test_two_images_of_a_class_decide_nothing():
    """Of two equally good students one often has both right and the other none: every draw says the same."""
    target_N = np.repeat([0, 1, 2], [40, 20, 2])
    right = ImageFacts(target_N, np.ones(62))
    wrong = ImageFacts(np.where(target_N == 2, 0, target_N), np.ones(62))
    values = bootstrap_metrics(target_N, [200, 50, 5], [right, wrong], resamples=50)
    assert not {"balanced_accuracy", "groups.thirds.tail"} & set(values)


def test_differences_do_not_leave_what_percentages_can_be():
    (low, high), _ = interval_and_p(np.array([-400.0, -200.0, 0.0, 200.0, 400.0]))
    assert (low, high) == (-100.0, 100.0)


def test_a_class_that_no_drawn_image_has_is_left_out_of_macro_f1():
    target_N, counts, logits = made(classes=4)
    drawn_N = np.resize(np.flatnonzero(target_N != 2), 60)
    weights = weights_of(drawn_N, target_N)
    metrics = Resampler(target_N, counts, facts(target_N, counts, logits)).metrics(weights, np.ones((60, 1)))
    expected = evaluate_predictions(logits[0][drawn_N], torch.from_numpy(target_N[drawn_N]), counts)
    assert metrics["macro_f1"][0, 0] == pytest.approx(expected["macro_f1"])


def test_draws_within_classes_keep_every_class_its_size_and_draws_anywhere_do_not():
    target_N, counts, logits = made(images=200)
    resampler = Resampler(target_N, counts, facts(target_N, counts, logits))
    sizes_C = np.bincount(target_N)
    within = resampler.drawn @ resampler.draw_within(np.random.default_rng(0), 50)
    assert (within == sizes_C[:, None]).all()
    anywhere = resampler.drawn @ resampler.draw_anywhere(np.random.default_rng(0), 50)
    assert (anywhere.sum(0) == 200).all()
    assert (anywhere != sizes_C[:, None]).any()


def test_each_image_of_a_class_is_drawn_equally_often():
    target_N, counts, logits = made(images=40, classes=3)
    resampler = Resampler(target_N, counts, facts(target_N, counts, logits))
    for draw in (resampler.draw_anywhere, resampler.draw_within):
        mean_N = draw(np.random.default_rng(1), 20_000).mean(1)
        assert mean_N == pytest.approx(np.ones(40), abs=0.05)


def test_the_spread_is_that_of_a_brute_force_bootstrap():
    target_N, counts, logits = made(images=80, classes=4, seed=3)
    values = bootstrap_metrics(target_N, counts, facts(target_N, counts, logits), resamples=4000, seed=5)
    random = np.random.default_rng(99)
    right = [one.argmax(1).numpy() == target_N for one in logits]
    tail = thirds(counts)["tail"]
    student = stats.t.ppf(0.975, np.isin(target_N, tail).sum() - len(tail)) / 1.959963984540054
    differences = {"top1": [], "groups.thirds.tail": []}
    for _ in range(4000):
        anywhere = random.integers(0, 80, 80)
        differences["top1"].append(100 * (right[0][anywhere].mean() - right[1][anywhere].mean()))
        recalls = []
        for c in tail:
            own = np.flatnonzero(target_N == c)
            drawn = random.choice(own, len(own))
            seen = right[0][own].mean() - right[1][own].mean()
            moved = right[0][drawn].mean() - right[1][drawn].mean() - seen
            recalls.append(100 * (seen + student * np.sqrt(len(own) / (len(own) - 1)) * moved))
        differences["groups.thirds.tail"].append(np.mean(recalls))
    for name, expected in differences.items():
        ours = values[name][:, 0] - values[name][:, 1]
        assert ours.mean() == pytest.approx(np.mean(expected), abs=5 * np.std(expected) / np.sqrt(2000))
        assert ours.std() == pytest.approx(np.std(expected), rel=0.08)


def test_stratified_spread_is_the_binomial_one():
    target_N = np.repeat([0, 1], 50)
    predicted = target_N.copy()
    predicted[:20] = 1
    run = bootstrap.ImageFacts(predicted, np.ones(100))
    values = bootstrap_metrics(target_N, [9, 3], [run], resamples=20_000)
    # Recall of class 0 is 60 %, of class 1 100 %: their mean moves by half of the first one's binomial error.
    assert values["balanced_accuracy"].std() == pytest.approx(50 * np.sqrt(0.6 * 0.4 / 50), rel=0.03)


def test_one_seed_draws_the_same_however_much_memory_there_is(monkeypatch):
    target_N, counts, logits = made()
    runs = facts(target_N, counts, logits)
    whole = bootstrap_metrics(target_N, counts, runs, resamples=100, seed=7)
    monkeypatch.setattr(bootstrap, "BLOCK_BYTES", 20_000)
    parts = bootstrap_metrics(target_N, counts, runs, resamples=100, seed=7)
    other = bootstrap_metrics(target_N, counts, runs, resamples=100, seed=8)
    for name, values in whole.items():
        np.testing.assert_allclose(parts[name], values, rtol=1e-12)
        assert (other[name] != values).any()


def test_memory_is_bounded_by_the_block():
    import tracemalloc

    target_N, counts, logits = made(images=2000, classes=50)
    runs = facts(target_N, counts, logits)
    tracemalloc.start()
    bootstrap_metrics(target_N, counts, runs, resamples=3000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * bootstrap.BLOCK_BYTES
    assert bootstrap.BLOCK_BYTES / 2 < 3000 * 2000 * 8, "too small a case to show anything"


def test_equal_runs_differ_by_nothing_at_all():
    target_N, counts, logits = made()
    values = bootstrap_metrics(target_N, counts, facts(target_N, counts, [logits[0]] * 2), resamples=50)
    for each in values.values():
        ends, p = interval_and_p(each[:, 0] - each[:, 1])
        assert ends == pytest.approx((0.0, 0.0), abs=1e-9)
        assert p == 1.0


def test_runs_with_other_images_are_refused():
    target_N, counts, logits = made()
    run = facts(target_N, counts, logits)[0]
    with pytest.raises(DataError, match="59 test images"):
        bootstrap_metrics(target_N[1:], counts, [run])
    with pytest.raises(DataError, match="one or more runs"):
        bootstrap_metrics(target_N, counts, [])


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=60))
def test_the_p_value_is_a_share_of_resamples_and_the_same_for_either_sign(values):
    differences = np.array(values)
    (low, high), p = interval_and_p(differences)
    assert (low, high) == pytest.approx(tuple(np.percentile(differences, [2.5, 97.5])))
    expected = 2 * (1 + min(sum(v <= 1e-9 for v in values), sum(v >= -1e-9 for v in values))) / (1 + len(values))
    assert p == pytest.approx(min(1.0, expected))
    assert p > 0
    assert interval_and_p(-differences)[1] == p
