"""`python -m flipguard`, so that `torchrun -m flipguard` and `accelerate launch -m flipguard` start it too."""

import sys

from flipguard.cli import main

sys.exit(main())
