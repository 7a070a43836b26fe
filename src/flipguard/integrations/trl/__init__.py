"""TRL's DPO and KTO trainers with the guard of Eq. 11, as drop-in classes: the only place that touches TRL's internals.

    from flipguard.integrations.trl import GuardedDPOConfig, GuardedDPOTrainer

They take what TRL's classes take, and the guard's options beside it: see docs/trl.md.
"""

from flipguard.integrations.trl.dpo import GuardedDPOConfig, GuardedDPOTrainer
from flipguard.integrations.trl.kto import GuardedKTOConfig, GuardedKTOTrainer

__all__ = ["GuardedDPOConfig", "GuardedDPOTrainer", "GuardedKTOConfig", "GuardedKTOTrainer"]
