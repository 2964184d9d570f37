"""A small made data set whose examples have several classes, and an experiment on it."""

from __future__ import annotations

import numpy as np

NAMES = ("rain", "wind", "hail", "frost", "fog", "snow")


def multi_label_arrays(rows=400, seed=0):
    """Inputs (rows, 8) float32 and labels (rows, 6) bool: a noisy linear rule each, from frequent to rare."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, 8)).astype(np.float32)
    rule, base = np.random.default_rng(7).normal(size=(8, 6)), np.array([1.0, 0.0, -1.5, -2.5, -4.0, -5.0])
    return x, x @ rule + base + random.logistic(size=(rows, 6)) > 0


def save_arrays(folder, rows=400):
    x, y = multi_label_arrays(rows)
    path = folder / "several.npz"
    np.savez(path, X=x, y=y, class_names=np.array(NAMES))
    return path


def experiment(folder, root, method="kd", **changes):
    return {
        "name": "several",
        "output": str(folder / "run"),
        "data": {"name": "arrays", "root": str(root), "targets": "multi_label", "validation": 0.2},
        "teacher": {"model": {"name": "mlp", "hidden": 32}},
        "student": {"model": {"name": "mlp", "hidden": 8, "depth": 1}},
        "method": method,
        "training": {"epochs": 4, "batch_size": 32, "learning_rate": 0.02},
        "trainer": {"device": "cpu", "checkpoint_every_steps": 3, "trackers": []},
        **changes,
    }
