"""Settings for the whole suite."""

import os

from hypothesis import HealthCheck, settings

# Before torch is imported. Tests are small computations: threads that wait for one another cost more than they bring.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# A busy machine is not a fault of the code.
settings.register_profile("distail", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("distail")
