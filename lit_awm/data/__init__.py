"""Data for world models and policies."""

from lit_awm.data.evaluation import SCORES, EvaluationEpisodes, evaluate
from lit_awm.data.experience import ExperienceDataModule

__all__ = ["SCORES", "EvaluationEpisodes", "ExperienceDataModule", "evaluate"]
