"""`python -m distail` is `distail`; this is what torchrun and accelerate launch start."""

import sys

from distail.cli.app import main

sys.exit(main())
