"""World models and policies: plain modules, tensors in and tensors out."""

from lit_awm.models.actions import ActionsWorldModel
from lit_awm.models.policy import DeterministicPolicy, Policy, TanhNormalPolicy
from lit_awm.models.standardizer import Standardizer
from lit_awm.models.transformer import CausalTransformer
from lit_awm.models.world_model import Prediction, RewardFn, WorldModel

__all__ = [
    "ActionsWorldModel",
    "CausalTransformer",
    "DeterministicPolicy",
    "Policy",
    "Prediction",
    "RewardFn",
    "Standardizer",
    "TanhNormalPolicy",
    "WorldModel",
]
