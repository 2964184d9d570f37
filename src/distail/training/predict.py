"""Logits of a whole data set, in its order."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from distail.data.batches import evaluation_batches
from distail.data.images import LabelledImages
from distail.models.feature_tap import FeatureTap
from distail.training.machine import Machine

EVALUATION_BATCH = 512


def predict(
    network: FeatureTap, data: LabelledImages, mean: Sequence[float], std: Sequence[float], machine: Machine
) -> Tensor:
    """Logits (N, C) in float32 on the CPU, without augmentation; processes share the work and all get the whole."""
    logits_NC = torch.zeros(len(data), network.num_classes, device=machine.device)
    batches = evaluation_batches(
        data,
        batch_size=EVALUATION_BATCH,
        mean=mean,
        std=std,
        device=machine.device,
        channels_last=machine.channels_last,
        rank=machine.rank,
        world_size=machine.world_size,
    )
    was_training = network.training
    network.eval()
    with torch.inference_mode(), machine.autocast():
        for batch in batches:
            if len(batch.index):
                logits_NC[batch.index] = network(batch.images).logits.float()
    network.train(was_training)
    return machine.sum_over_processes(logits_NC).cpu()
