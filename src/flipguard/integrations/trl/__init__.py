"""TRL's trainers with the guard of Eq. 11, as drop-in classes: the only place that touches TRL's internals.

    from flipguard.integrations.trl import GuardedDPOConfig, GuardedDPOTrainer

They take what TRL's classes take, and the guard's options beside it: see docs/trl.md.
"""

from flipguard.integrations.trl.dpo import GuardedDPOConfig, GuardedDPOTrainer
from flipguard.integrations.trl.grpo import GuardedGRPOConfig, GuardedGRPOTrainer
from flipguard.integrations.trl.kto import GuardedKTOConfig, GuardedKTOTrainer
from flipguard.integrations.trl.ppo import GuardedPPOConfig, GuardedPPOTrainer
from flipguard.integrations.trl.rloo import GuardedRLOOConfig, GuardedRLOOTrainer

__all__ = [
    "GuardedDPOConfig",
    "GuardedDPOTrainer",
    "GuardedGRPOConfig",
    "GuardedGRPOTrainer",
    "GuardedKTOConfig",
    "GuardedKTOTrainer",
    "GuardedPPOConfig",
    "GuardedPPOTrainer",
    "GuardedRLOOConfig",
    "GuardedRLOOTrainer",
]
