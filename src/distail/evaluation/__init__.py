"""Metrics by class and group from stored predictions, calibration, and the audit of a teacher's bias."""
