"""Settings for the whole suite."""

import os

# Before torch is imported. Tests are small computations: threads that wait for one another cost more than they bring.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
