"""One loop for teacher and student, schedules, and checkpoints that survive being killed."""
