"""The claims about gradients through world models, each as a study that one command runs."""

from collections.abc import Callable

from lit_awm.studies.equivalence import equivalence
from lit_awm.studies.growth import growth
from lit_awm.studies.verdict import Verdict

STUDIES: dict[str, Callable[[bool], Verdict]] = {"equivalence": equivalence, "growth": growth}

__all__ = ["STUDIES", "Verdict", "equivalence", "growth"]
