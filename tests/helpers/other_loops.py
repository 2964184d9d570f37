"""Small random networks and made-up sentences for the loops of others, and the plain loop that theirs must equal."""

import copy

import torch
from torch import nn

from distail.models import FeatureTap

COUNTS = (20, 12, 8)
SIZE, BATCH, EPOCHS, RATE = sum(COUNTS), 8, 4, 0.05  # 20 steps
WORDS, LENGTH = 30, 6
ONE_STAGE = {"name": "ipwd", "teacher": "previous_epoch", "start": 0.25}
METHODS = {name: name for name in ("bkd", "dive", "drkd", "ipwd", "krdistill")} | {"ipwd one-stage": ONE_STAGE}


class Reader(nn.Module):
    """Reads keywords, and answers with a mapping, as the networks of transformers do."""

    def __init__(self, width):
        super().__init__()
        self.words = nn.Embedding(WORDS, width)
        self.classifier = nn.Linear(width, 3)

    def forward(self, input_ids, attention_mask):
        weight = attention_mask / attention_mask.sum(1, keepdim=True)
        return {"logits": self.classifier(torch.tanh((self.words(input_ids) * weight[:, :, None]).sum(1)))}


def reader(width, seed):
    torch.manual_seed(seed)
    return Reader(width)


def sentences(seed=0, size=SIZE):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(3).repeat_interleave(torch.tensor(COUNTS))[torch.randperm(SIZE, generator=generator)]
    words = torch.randint(0, WORDS, (size, LENGTH), generator=generator)
    mask = torch.ones(LENGTH, dtype=torch.int64)
    return [
        {"input_ids": word, "attention_mask": mask, "labels": int(label)}
        for word, label in zip(words, labels[:size], strict=True)
    ]


ITEMS = sentences()


def batch_of(items, names=("input_ids", "attention_mask")):
    inputs = {name: torch.stack([item[name] for item in items]) for name in names}
    return inputs, torch.stack([torch.as_tensor(item["labels"]) for item in items])


def logits_of(network, items):
    with torch.no_grad():
        return network(**batch_of(items)[0])["logits"]


def plain_losses(student, teacher, method, items, *, epochs=EPOCHS, batch=BATCH):
    """What a loop of ten lines gives at each step; its networks and method are copies."""
    student, teacher, method = copy.deepcopy((student, teacher, method))
    taps = FeatureTap(student, 3), FeatureTap(teacher, 3).eval()
    indices = [torch.arange(start, min(start + batch, len(items))) for start in range(0, len(items), batch)]
    batches = [(*batch_of([items[i] for i in index]), index) for index in indices]
    with torch.no_grad():
        method.prepare((taps[1](**inputs), labels) for inputs, labels, _ in batches)
    optimizer = torch.optim.SGD([*student.parameters(), *method.trainable_parameters()], lr=RATE)
    losses = []
    for epoch in range(epochs):
        method.begin_epoch(epoch, epochs)
        for inputs, labels, index in batches:
            with torch.no_grad():
                heard = taps[1](**inputs)
            terms = method(taps[0](**inputs), heard, labels, index=index)
            optimizer.zero_grad()
            terms.total.backward()
            optimizer.step()
            losses.append({"loss": terms.total.item(), **{name: value.item() for name, value in terms.items()}})
    return losses
