"""Callbacks.

Those that set the horizon change what is learned, and so does `GradientGuard` where it does more than stop; all others
only observe.
"""

from lit_awm.callbacks.adaptive_horizon import AdaptiveHorizon
from lit_awm.callbacks.gradient_fidelity import GradientFidelity
from lit_awm.callbacks.gradient_guard import GradientError, GradientGuard
from lit_awm.callbacks.gradient_norm_monitor import GradientNormMonitor
from lit_awm.callbacks.horizon_curriculum import HorizonCurriculum
from lit_awm.callbacks.policy_video import PolicyVideo
from lit_awm.callbacks.progress import AlternatingProgress
from lit_awm.callbacks.run_summary import RunSummary
from lit_awm.callbacks.save_on_interrupt import SaveOnInterrupt
from lit_awm.callbacks.throughput import Throughput
from lit_awm.callbacks.trajectory_figure import TrajectoryFigure

__all__ = [
    "AdaptiveHorizon",
    "AlternatingProgress",
    "GradientError",
    "GradientFidelity",
    "GradientGuard",
    "GradientNormMonitor",
    "HorizonCurriculum",
    "PolicyVideo",
    "RunSummary",
    "SaveOnInterrupt",
    "Throughput",
    "TrajectoryFigure",
]
