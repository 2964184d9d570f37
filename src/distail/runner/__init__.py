"""One experiment carried out: stages, run folder, result."""
