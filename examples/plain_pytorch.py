"""A plain PyTorch loop that distills with BKD. The images are made up."""

import torch
from torch.utils.data import DataLoader, TensorDataset

import distail

counts = [40, 20, 4]  # training images of each class
labels = torch.arange(3).repeat_interleave(torch.tensor(counts))
loader = DataLoader(TensorDataset(torch.randn(len(labels), 3, 16, 16), labels), batch_size=16, shuffle=True)
teacher = distail.models.create_model("resnet20", num_classes=3).eval()
student = distail.models.create_model("resnet8", num_classes=3)
method = distail.create_method("bkd", class_counts=counts)
optimizer = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9)

epochs = 2
for epoch in range(epochs):
    method.begin_epoch(epoch, epochs)
    for images, target in loader:
        with torch.no_grad():
            teacher_outputs = distail.Outputs(teacher(images))
        terms = method(distail.Outputs(student(images)), teacher_outputs, target)
        optimizer.zero_grad()
        terms.total.backward()
        optimizer.step()
    print(epoch, {name: round(value.item(), 3) for name, value in terms.items()})
