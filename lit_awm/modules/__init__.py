"""LightningModules that wire models to a loss."""

from lit_awm.modules.alternating import AlternatingModule
from lit_awm.modules.muon import MuonAdam
from lit_awm.modules.policy import PolicyModule
from lit_awm.modules.schedules import CosineRestarts
from lit_awm.modules.world_model import WorldModelModule

__all__ = ["AlternatingModule", "CosineRestarts", "MuonAdam", "PolicyModule", "WorldModelModule"]
