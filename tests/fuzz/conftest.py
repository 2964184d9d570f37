"""What is not run by pytest."""

collect_ignore = ["fuzz_forever.py"]  # a program of its own, for which atheris must be there (make fuzz)
