"""World models and policies: plain modules, tensors in and tensors out."""

from lit_awm.models.actions import ActionsWorldModel
from lit_awm.models.attention import AttentionBackbone
from lit_awm.models.backbone import Backbone
from lit_awm.models.continuation import Continuation
from lit_awm.models.critic import ActionCritic, Critic
from lit_awm.models.guided import GuidedWorldModel
from lit_awm.models.history import HistoryWorldModel
from lit_awm.models.markov import MarkovWorldModel
from lit_awm.models.policy import DeterministicPolicy, Policy, TanhNormalPolicy
from lit_awm.models.recurrent import RecurrentBackbone
from lit_awm.models.relevance import find_noise
from lit_awm.models.reward import RewardModel
from lit_awm.models.simulator import SimulatorWorldModel, StepFn
from lit_awm.models.standardizer import DriftStandardizer, Standardizer
from lit_awm.models.state_space import StateSpaceBackbone
from lit_awm.models.transformer import CausalTransformer
from lit_awm.models.unrolled import UnrolledWorldModel
from lit_awm.models.world_model import Prediction, RewardFn, WorldModel

__all__ = [
    "ActionCritic",
    "ActionsWorldModel",
    "AttentionBackbone",
    "Backbone",
    "CausalTransformer",
    "Continuation",
    "Critic",
    "DeterministicPolicy",
    "DriftStandardizer",
    "GuidedWorldModel",
    "HistoryWorldModel",
    "MarkovWorldModel",
    "Policy",
    "Prediction",
    "RecurrentBackbone",
    "RewardFn",
    "RewardModel",
    "SimulatorWorldModel",
    "Standardizer",
    "StateSpaceBackbone",
    "StepFn",
    "TanhNormalPolicy",
    "UnrolledWorldModel",
    "WorldModel",
    "find_noise",
]
