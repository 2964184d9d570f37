"""`python -m distail` is `distail`; this is what torchrun and accelerate launch start."""

import sys

from distail.cli import main

sys.exit(main())
