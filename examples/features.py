"""A step of IPWD, which reads the student's features and has a layer of its own."""

import torch

import distail
from distail.models import FeatureTap, create_model

student = FeatureTap(create_model("resnet8", num_classes=3), num_classes=3)
teacher = create_model("resnet20", num_classes=3).eval()
method = distail.create_method("ipwd", class_counts=[40, 20, 4], student_dim=student.feature_dim)
optimizer = torch.optim.SGD([*student.model.parameters(), *method.trainable_parameters()], lr=0.05)

images, labels = torch.randn(8, 3, 16, 16), torch.randint(0, 3, (8,))
with torch.no_grad():
    teacher_outputs = distail.Outputs(teacher(images))
terms = method(student(images), teacher_outputs, labels)  # a FeatureTap answers with Outputs: logits and features
optimizer.zero_grad()
terms.total.backward()
optimizer.step()
