"""LightningModules that wire models to a loss."""

from lit_awm.modules.agent import AgentModule
from lit_awm.modules.alternating import AlternatingModule
from lit_awm.modules.bootstrap import ValueBootstrap
from lit_awm.modules.muon import MuonAdam
from lit_awm.modules.offline import OfflineWorldModelModule
from lit_awm.modules.online_dt import DecisionTransformerPolicy, OnlineDTModule
from lit_awm.modules.policy import PolicyModule
from lit_awm.modules.sac import SACModule
from lit_awm.modules.schedules import CosineRestarts, DecaySchedule, LinearSchedule
from lit_awm.modules.teacher import TeacherModule
from lit_awm.modules.world_model import WorldModelModule

__all__ = [
    "AgentModule",
    "AlternatingModule",
    "CosineRestarts",
    "DecaySchedule",
    "DecisionTransformerPolicy",
    "LinearSchedule",
    "MuonAdam",
    "OfflineWorldModelModule",
    "OnlineDTModule",
    "PolicyModule",
    "SACModule",
    "TeacherModule",
    "ValueBootstrap",
    "WorldModelModule",
]
