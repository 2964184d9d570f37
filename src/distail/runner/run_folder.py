"""The one folder that a run leaves: its files, its lock, and whether it is finished."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from distail import files
from distail.config.precision import Precisions, read_precision, written_precision
from distail.config.schema import Experiment, Trainer
from distail.config.section import AUTO
from distail.errors import CheckpointError, ConfigError, TrainingError, listed
from distail.evaluation.predictions import load_predictions
from distail.evaluation.run_files import OtherVersionError, RunFiles, RunResult, read_result
from distail.file_lock import FolderInUseError, FolderLock, lock_folder
from distail.json_values import as_mapping
from distail.models.weights import check_weights
from distail.training.checkpoint import CheckpointFolder

Value = TypeVar("Value")
# Settings of `data` that may change between starts: where images lie and how they come in. Which they are, hashes tell.
CHANGEABLE_DATA_SETTINGS = frozenset({"root", "stream", "memory_limit_mb", "workers"})

_KINDS = {"config.yaml": "a run", "comparison.yaml": "a comparison", "search.yaml": "a search"}


def other_kind(folder: Path, own: str) -> list[str]:
    """What a folder holds of another kind, over whose report this one's would be written.

    Args:
        own: the file by which a folder of this kind is known; nothing where it is there.
    """
    if (folder / own).is_file():
        return []
    return [
        f"{str(folder)!r} holds {kind} ({file}); choose another output"
        for file, kind in _KINDS.items()
        if (folder / file).is_file()
    ]


@dataclass(frozen=True)
class RunFolder(RunFiles):
    """A run's files, with what its own process does with them: lock them, judge them, tidy them."""

    def has_stage(self, stage: str) -> bool:
        """Whether the folder holds something of a stage, so that what it began with is no longer needed."""
        return self.weights(stage).is_file() or bool(CheckpointFolder(self.checkpoints(stage)).steps())

    def stored_result(self) -> RunResult | None:
        """The result of a finished run, or None.

        Raises:
            CheckpointError: it is damaged, or another version's.
        """
        return read_result(self.result) if self.result.is_file() else None

    def finished(self, experiment: Experiment, warn: Callable[[str], None]) -> RunResult | None:
        """The result of this experiment where nothing is left to do; reads only, so that it needs no lock.

        A file that is missing or damaged is something to do where the last checkpoint can give it back; else a warning.

        Raises:
            CheckpointError: the result is another version's, or damaged for good.
        """
        if not (self.result.is_file() and self.config.is_file()):
            return None
        if any(_differing(recorded, experiment) for recorded in self._recorded_experiments()):
            return None
        damage = self._damage()
        # Without the teacher's checkpoints another teacher would be trained, unless it was loaded.
        given = experiment.teacher.files if experiment.teacher else ()
        trained = "teacher" in damage and not (given and all(path.is_file() for path in given))
        needed = ["student", "teacher"] if trained else ["student"]
        if damage and all(CheckpointFolder(self.checkpoints(stage)).steps() for stage in needed):
            because = f"{str(self.path)!r} was finished, and is finished again from its checkpoint, because"
            warn(listed(damage.values(), because))
            return None
        result = self.stored_result()
        for problem in damage.values():
            warn(problem)
        return result

    def _damage(self) -> dict[str, str]:
        """What a run that has a result lacks of its files, or holds damaged: one sentence for each of them.

        Raises:
            OtherVersionError: the result is another version's.
        """
        damage: dict[str, str] = {}

        def attempt(what: str, read: Callable[[], Value]) -> Value | None:
            try:
                return read()
            except OtherVersionError:
                raise
            except CheckpointError as error:
                damage[what] = str(error)
                return None

        result = attempt("result", self.stored_result)
        attempt("predictions", partial(load_predictions, self.predictions))
        if result is not None and result["teacher"] is not None and "stored" not in result["teacher"]:
            attempt("teacher", partial(check_weights, self.weights("teacher")))
        attempt("student", partial(check_weights, self.weights("student")))
        return damage

    def remove_temporary_files(self) -> None:
        """Remove the temporary files of processes that were killed; only for the one that holds the lock."""
        checkpoints = self.path / "checkpoints"
        for folder in (self.path, checkpoints, *(path for path in checkpoints.rglob("*") if path.is_dir())):
            files.remove_stale_temporaries(folder)

    @contextmanager
    def locked(self, warn: Callable[[str], None] = lambda message: None) -> Iterator[FolderLock]:
        """Hold the folder for one process; the system frees the lock when the process ends, however it ends.

        Raises:
            ConfigError: the folder cannot be written, or another process holds it.
        """
        with ExitStack() as held:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                lock = held.enter_context(lock_folder(self.path))
            except FolderInUseError as error:
                raise ConfigError(
                    f"{str(self.path)!r} is in use by {error.holder}; wait for it, or choose another output"
                ) from None
            except FileExistsError:
                raise ConfigError(f"output {str(self.path)!r} is a file; expected a folder, or a new name") from None
            except OSError as error:
                raise ConfigError(f"output {str(self.path)!r} cannot be written: {error.strerror or error}") from None
            if lock.missing:
                warn(
                    f"the file system of {str(self.path)!r} has no locks ({lock.missing}): "
                    "a second run in this folder would not be prevented"
                )
            yield lock

    def check_place(self) -> None:
        """Refuse an output of which it shows without a try that `locked` cannot write it; nothing is made.

        Raises:
            ConfigError: it is a file, or lies in one or in a folder that may not be written.
        """
        there = next(path for path in (self.path, *self.path.absolute().parents) if os.path.exists(path))
        if not there.is_dir():
            where = "is" if there == self.path else f"lies in {str(there)!r}, which is"
            raise ConfigError(f"output {str(self.path)!r} {where} a file; expected a folder, or a new name")
        if not os.access(there, os.W_OK):
            raise ConfigError(f"output {str(self.path)!r} cannot be written: no permission to write in {str(there)!r}")

    def require(self, lock: FolderLock | None) -> None:
        """Let pass while the folder is the one that was locked; None is of a process that writes nothing.

        Raises:
            TrainingError: it was removed, and may be another run's by now.
        """
        if lock is not None and not lock.still_ours():
            raise TrainingError(
                f"the folder {str(self.path)!r} was removed or recreated during this run, which writes nothing more "
                "there. Start the run again"
            )

    def stored_experiment(self, experiment: Experiment) -> Experiment | None:
        """The experiment that this folder was started with, or None for a new folder.

        Raises:
            ConfigError: the folder holds another experiment than the one asked for (every key that differs is listed),
                one that nobody knows, or a comparison or a search.
        """
        if not self.config.is_file():
            left = [path.name for path in (self.result, self.path / "checkpoints") if path.exists()]
            if left:
                raise ConfigError(
                    f"{str(self.path)!r} holds {' and '.join(left)} of a run, but not its config.yaml; "
                    "choose another output, or empty the folder"
                )
            for problem in other_kind(self.path, self.config.name):
                raise ConfigError(problem)
            return None
        stored, *others = self._recorded_experiments()
        for recorded in (stored, *others):
            if differing := _differing(recorded, experiment):
                headline = f"{str(self.path)!r} holds another experiment; choose another output or name. It differs in:"
                raise ConfigError(listed(differing, headline))
        return stored

    def recorded_identities(self) -> list[Mapping[str, Any]]:
        """What training wrote of the run that it was of: in the newest checkpoints, and in the result."""
        newest = [CheckpointFolder(self.checkpoints(stage)).newest_values() for stage in ("student", "teacher")]
        with suppress(CheckpointError):  # a damaged result is told elsewhere
            newest.append(dict(self.stored_result() or {}))
        return [identity for values in newest if (identity := as_mapping(values.get("identity")))]

    def _recorded_experiments(self) -> list[Experiment]:
        """What the folder says that it holds: its configuration, which a user can edit, and what training wrote."""
        found = [Experiment.from_yaml(self.config)]
        for identity in self.recorded_identities():
            settings = as_mapping(identity.get("experiment"))
            with suppress(ConfigError):  # settings of another version, which the configuration answers for
                if settings:
                    found.append(Experiment.from_mapping(settings))
        return found


def _differing(stored: Experiment, asked: Experiment) -> list[str]:
    """What of the experiment asked for would change the run that was stored, one line a key."""
    was, given = _compared(stored), _compared(asked)
    began = Precisions.of(stored.trainer.precision)
    # Where it is `auto`, whatever it was when the run began.
    now = Precisions.of(asked.trainer.precision).settled(lambda use: str(getattr(began, use)))
    for compared, formats in ((was, began), (given, now)):
        compared["trainer"]["precision"] = written_precision(read_precision(formats))
    for compared, other in ((was, given), (given, was)):
        if stored.teacher and asked.teacher and compared["teacher"]["views"] == AUTO:
            compared["teacher"]["views"] = other["teacher"]["views"]
    return list(differences(was, given))


def _compared(experiment: Experiment) -> dict[str, Any]:
    # The rest may change between starts: another machine, another checkpoint interval, more memory.
    machine, free = {*Trainer.model_fields} - {"precision", "sync_batch_norm"}, set(CHANGEABLE_DATA_SETTINGS)
    return experiment.model_dump(mode="json", exclude={"trainer": machine, "output": True, "data": free})


def differences(stored: Any, given: Any, where: str = "") -> Iterator[str]:
    """One line for each key in which two nested mappings differ.

    >>> list(differences({"data": {"name": "digits"}, "seed": 0}, {"data": {"name": "csv"}, "seed": 0}))
    ["data.name: 'digits' there, 'csv' asked for"]
    """
    if isinstance(stored, Mapping) and isinstance(given, Mapping):
        for key in sorted({*stored, *given}):
            yield from differences(stored.get(key), given.get(key), f"{where}.{key}" if where else key)
    elif stored != given:
        yield f"{where}: {stored!r} there, {given!r} asked for"
