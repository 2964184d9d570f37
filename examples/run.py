"""An experiment from Python: the same keys as in a YAML file, the same folder, resumed in the same way."""

import distail

config = {
    "name": "from-python",
    "data": {"name": "digits", "imbalance_factor": 20},
    "teacher": {"model": "resnet8"},
    "student": "resnet8",
    "method": "bkd",
    "training": {"epochs": 2, "batch_size": 64, "learning_rate": 0.1, "schedule": "one-cycle"},
}
result = distail.run(config)
print(result.folder, result.student["balanced_accuracy"])
