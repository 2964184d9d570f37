"""The images that an experiment names."""

from __future__ import annotations

from distail.config import Experiment
from distail.data.prepare import PreparedData, prepare_data


def images_of(experiment: Experiment, *, progress: bool = True) -> PreparedData:
    """Everything a run knows of its data: what its configuration and its seed make of the source.

    Raises:
        DataError: the data cannot be found, read or split as asked.
    """
    options = experiment.data
    return prepare_data(
        options.name,
        root=options.root,
        imbalance_factor=options.imbalance_factor,
        profile=options.profile,
        validation=options.validation,
        seed=experiment.seed,
        image_size=options.image_size,
        skip_unreadable=options.skip_unreadable,
        progress=progress,
        stream=options.stream,
        memory_limit_mb=options.memory_limit_mb,
        workers=options.workers,
        allow_outside_root=options.allow_outside_root,
    )
