"""Searches whose runs are made up: what a method is worth is a formula, so that nothing needs to be trained."""

import json
import math
import random
from pathlib import Path

import torch

from distail.compare.scheduler import Schedule
from distail.config.data import Folds
from distail.config.schema import Experiment
from distail.data.prepare import prepare_data
from distail.evaluation.predictions import Predictions, save_predictions
from distail.files import write_json
from distail.search.budget import Budget
from distail.search.goal import Goal
from distail.search.space import space_of
from distail.search.study import open_study
from distail.search.trials import TrialRuns, Trials
from distail.training.signals import StopRequest
from helpers.comparison_cases import Quiet

CONFIG = {
    "name": "made-up",
    "data": {"name": "digits", "imbalance_factor": 20, "validation": 0.2, "augment": ["crop"]},
    "teacher": {"model": "resnet8"},
    "student": "resnet8",
    "method": "ce",
    "training": {"epochs": 9, "batch_size": 128, "learning_rate": 0.05},
    "trainer": {"device": "cpu"},
}


def metrics(balanced, top1=80.0):
    thirds = {"head": balanced + 10, "medium": balanced, "tail": balanced - 10}
    return {
        "top1": top1,
        "balanced_accuracy": balanced,
        "per_class_recall": [balanced, balanced],
        "groups": {"thirds": thirds},
    }


class AtRandom:
    """Answers every question by the dice."""

    def __init__(self, seed):
        self.dice, self.asked = random.Random(seed), {}

    def suggest_categorical(self, name, choices):
        return self.asked.setdefault(name, self.dice.choice(list(choices)))

    def suggest_float(self, name, low, high, *, log=False):
        drawn = math.exp(self.dice.uniform(math.log(low), math.log(high))) if log else self.dice.uniform(low, high)
        return self.asked.setdefault(name, drawn)


class MadeUp:
    """Writes what a run would leave, at once; `score` takes the experiment to (balanced accuracy, top-1) or a dict.

    Args:
        killed: after so many starts the process is gone: `KeyboardInterrupt`.
    """

    def __init__(self, score, parallel=1, killed=None):
        self.score, self.parallel, self.killed = score, parallel, killed
        self.started, self.stopped, self._done = [], [], {}

    def start(self, spec):
        if len(self.started) == self.killed:
            raise KeyboardInterrupt
        self.started.append(spec["name"])
        self._done[spec["name"]] = None
        experiment = Experiment.from_mapping(spec["experiment"])
        score = self.score(experiment)
        if score is None:
            write_json(Path(spec["status"]), {"state": "failed", "kind": "TrainingError", "problem": "made to fail"})
            return
        folder = experiment.output
        folder.mkdir(parents=True, exist_ok=True)
        folds = experiment.data.validation
        if isinstance(folds, Folds):
            assert folds.fold is not None
            score = (score[0] + 10 * folds.fold, score[1])
            # More examples in later folds, so that all of them together are not the mean of folds.
            targets = torch.zeros(100 * (folds.fold + 1), dtype=torch.int64)
            right = torch.arange(len(targets)) < round(score[0]) * (folds.fold + 1)
            logits = torch.stack([right.float(), 1 - right.float()], dim=1)
            save_predictions(
                folder / "predictions.safetensors", logits, targets, validation=Predictions(logits, targets, None)
            )
        rows = []
        for epoch in range(experiment.training.epochs):
            row = {"stage": "student", "epoch": epoch, "loss": 1.0, "validation": metrics(*score), "seconds": 0.0625}
            rows.append(json.dumps(row) + "\n")
        (folder / "metrics.jsonl").write_text("".join(rows))
        (folder / "config.yaml").write_text(experiment.to_yaml())
        test = {"test": metrics(*score)}
        timing = {"student": {"seconds": 1.0}}
        result = {"schema_version": 1, "class_counts": [9, 3], "teacher": None, "student": test, "timing": timing}
        write_json(folder / "result.json", result)

    def ended(self):
        done, self._done = self._done, {}
        return done

    def stop(self, name=None):
        self.stopped.append(name)

    def close(self): ...


def space_for(base):
    """What a search of this experiment may choose, of the data that it names."""
    return space_of(base, prepare_data(base.data.model_copy(update={"validation": 0}), seed=base.seed).train)


def made_up_search(folder, engine, *, trials=9, goal=None, minutes=None, config=None):
    """Run the trials of a search, from where the folder was left; returns `Trials`."""
    base = Experiment.from_mapping({**CONFIG, **(config or {})})
    space = space_for(base)
    folder.mkdir(exist_ok=True)
    study = open_study(folder / "study.journal", base.training.epochs, space)
    schedule = Schedule([], folder)
    budget = Budget(minutes, trials)
    goal = goal or Goal("balanced_accuracy", 5.0)
    found = Trials(study, space, TrialRuns(base, folder), goal, budget, schedule, (3, 5), engine.parallel)
    schedule.run_jobs(engine, Quiet(), StopRequest(), lambda: None, found)
    return found
