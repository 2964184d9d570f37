"""A loop as in timm's training script: `loss_fn` inside an autocast block. The images are made up."""

import torch

import distail

model = distail.models.create_model("resnet8", num_classes=3)
teacher = distail.models.create_model("resnet20", num_classes=3).eval()
loss_fn = distail.create_method("bkd", class_counts=[40, 20, 4])
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
loader = [(torch.randn(16, 3, 16, 16), torch.randint(0, 3, (16,))) for _ in range(2)]


def train_one_epoch(epoch: int, epochs: int) -> float:
    model.train()
    loss_fn.begin_epoch(epoch, epochs)
    total = 0.0
    for input, target in loader:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            with torch.no_grad():
                teacher_logits = teacher(input)
            output = model(input)
            loss = loss_fn(distail.Outputs(output), distail.Outputs(teacher_logits), target).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
    return total / len(loader)


print(train_one_epoch(0, 1))
