"""A gradient-boosting teacher: scikit-learn trains it, a file of its answers teaches a small network."""

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import cross_val_predict

import distail
from distail.data.dataset import LabeledImages
from distail.data.prepare import prepare_data

options = {"imbalance_factor": 20, "validation": 0.1}
data = prepare_data("digits", seed=0, **options)
parts = {"train": data.train, "validation": data.validation, "test": data.test}
splits = {split: images for split, images in parts.items() if isinstance(images, LabeledImages)}
pixels = {split: images.images.flatten(1).numpy() for split, images in splits.items()}
labels = {split: images.labels.numpy() for split, images in splits.items()}
# Which image each row is of: its row in the data set's training or test part.
rows = {"train": data.train_rows, "validation": data.validation_rows, "test": np.arange(len(data.test))}

boosting = HistGradientBoostingClassifier(max_iter=30, random_state=0)
# What a teacher says of images that it was trained on is too sure: each is asked about by one trained without it.
answers = {"train": cross_val_predict(boosting, pixels["train"], labels["train"], cv=3, method="predict_proba")}
boosting.fit(pixels["train"], labels["train"])
answers |= {split: boosting.predict_proba(pixels[split]) for split in ("validation", "test")}

np.savez(
    "boosting.npz",
    probabilities=np.concatenate([answers[split] for split in splits]).astype(np.float32),
    id=np.concatenate([rows[split] for split in splits]),
    split=np.repeat(list(splits), [len(images) for images in splits.values()]),
    target=np.concatenate([labels[split] for split in splits]),
    class_names=np.array(data.class_names),
)

result = distail.run(
    {
        "name": "from-boosting",
        "data": {"name": "digits", **options, "augment": ["crop"]},
        "teacher": {"logits": "boosting.npz"},
        "student": "resnet8",
        "method": {"name": "kd", "supervised": "balanced_softmax", "targets": "debias"},
        "training": {"epochs": 2, "batch_size": 64, "learning_rate": 0.1, "schedule": "one-cycle"},
    }
)
taught_by = result.teacher
assert taught_by is not None, "the file has answers for the test images"
print(f"teacher {taught_by['top1']:.1f} %, student {result.student['top1']:.1f} %")
