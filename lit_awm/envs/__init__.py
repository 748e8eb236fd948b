"""Environments whose true dynamics, gradients and optimum are known."""

from lit_awm.envs.control import ControlEnv
from lit_awm.envs.factory import SYSTEMS, make_env
from lit_awm.envs.known import KnownReward, KnownStep
from lit_awm.envs.ode import OdeEnv
from lit_awm.envs.optimum import Optimum, load_optimum

__all__ = ["SYSTEMS", "ControlEnv", "KnownReward", "KnownStep", "OdeEnv", "Optimum", "load_optimum", "make_env"]
