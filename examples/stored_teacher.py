"""A gradient-boosting teacher: scikit-learn trains it, a file of its answers teaches a small network."""

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import cross_val_predict

import distail
from distail.data.prepare import prepare_data

options = {"imbalance_factor": 20, "validation": 0.1}
data = prepare_data("digits", seed=0, **options)
boosting = HistGradientBoostingClassifier(max_iter=30, random_state=0)


def pixels(images):
    return images.images.flatten(1).numpy()


# What a teacher says of images that it was trained on is too sure: each is asked about by one trained without it.
held_out = cross_val_predict(boosting, pixels(data.train), data.train.labels, cv=3, method="predict_proba")
boosting.fit(pixels(data.train), data.train.labels)
others = [boosting.predict_proba(pixels(images)) for images in (data.validation, data.test)]

splits = {"train": data.train, "validation": data.validation, "test": data.test}
np.savez(
    "boosting.npz",
    probabilities=np.concatenate([held_out, *others]).astype(np.float32),
    # Which image each row is of: its row in the data set's training or test part.
    id=np.concatenate([data.train_rows, data.validation_rows, np.arange(len(data.test))]),
    split=np.repeat(list(splits), [len(images) for images in splits.values()]),
    target=np.concatenate([images.labels for images in splits.values()]),
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
print(f"teacher {result.teacher['top1']:.1f} %, student {result.student['top1']:.1f} %")
