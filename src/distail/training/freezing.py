"""Which of a network's parameters are trained in which epoch, as a function of the epoch: no checkpoint holds it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from distail.errors import ModelError
from distail.models.feature_tap import FeatureTap


class Freezing:
    """In the first epochs the classifier alone is trained; all else is frozen, and in evaluation mode.

    A frozen parameter gets no gradient, so that neither momentum nor weight decay moves it; in evaluation mode batch
    statistics stay, and nothing is dropped.

    Args:
        classifiers: the path of the classifier in the bare network, or of each where there are several.
        frozen_epochs: how many of the first epochs.

    Raises:
        ModelError: nothing of the classifier is trainable.

    >>> tap = FeatureTap(nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)), 2)
    >>> freezing = Freezing(tap, [tap.classifier_path], frozen_epochs=1)
    >>> for epoch in range(2):
    ...     _ = freezing.begin(epoch)
    ...     print([each.requires_grad for each in tap.model.parameters()], tap.model[2].training)
    [False, False, False, False, True, True] False
    [True, True, True, True, True, True] True
    """

    def __init__(self, student: FeatureTap, classifiers: Sequence[str] = (), frozen_epochs: int = 0) -> None:
        self._student, self._frozen_epochs = student, frozen_epochs
        self._trainable = [parameter for parameter in student.parameters() if parameter.requires_grad]
        self._classifiers: list[nn.Module] = []
        if classifiers and frozen_epochs:
            self._classifiers = [student.model.get_submodule(path) for path in classifiers]
            if not self._of_classifiers():
                named = " and ".join(map(repr, classifiers))
                raise ModelError(f"its classifier {named} is not trainable, and all else is frozen")
        self.frozen = False

    def trained_until(self, epochs: int) -> list[nn.Parameter]:
        """What is trained in any of so many epochs."""
        return self._of_classifiers() if self._classifiers and epochs <= self._frozen_epochs else self._trainable

    def begin(self, epoch: int) -> bool:
        """Put the student into the state of an epoch, counted from 0; whether other parameters are trained now."""
        frozen = bool(self._classifiers) and epoch < self._frozen_epochs
        changed, self.frozen = frozen != self.frozen, frozen
        trained = {*(self._of_classifiers() if frozen else self._trainable)}
        for parameter in self._trainable:
            parameter.requires_grad_(parameter in trained)
        self._student.train(not frozen)
        for classifier in self._classifiers if frozen else ():
            classifier.train()
        return changed

    def lift(self) -> None:
        """Let everything be trainable again that was."""
        for parameter in self._trainable:
            parameter.requires_grad_(True)

    def _of_classifiers(self) -> list[nn.Parameter]:
        mine = {*self._trainable}
        return [each for classifier in self._classifiers for each in classifier.parameters() if each in mine]
