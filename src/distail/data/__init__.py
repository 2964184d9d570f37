"""Images and labels: sources, long-tail profiles, splits, samplers, augmentation, batches."""
