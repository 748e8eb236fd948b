"""Data for world models and policies."""

from lit_awm.data.evaluation import SCORES, EvaluationEpisodes, evaluate, make_eval_env
from lit_awm.data.experience import EVALUATION_SEED, ExperienceDataModule
from lit_awm.data.offline import TrajectoryDataModule

__all__ = [
    "EVALUATION_SEED",
    "SCORES",
    "EvaluationEpisodes",
    "ExperienceDataModule",
    "TrajectoryDataModule",
    "evaluate",
    "make_eval_env",
]
