"""The claims about gradients through world models, each as a study that one command runs."""

from collections.abc import Callable

from lit_awm.studies import choice, detachment, equivalence, growth, horizon
from lit_awm.studies.verdict import Verdict

STUDIES: dict[str, Callable[..., Verdict]] = {  # of whether to be quick, and of the number of seeds
    "equivalence": equivalence.equivalence,
    "growth": growth.growth,
    "chaos": choice.chaos,
    "contact": choice.contact,
    "credit": choice.credit,
    "horizon": horizon.horizon,
    "detachment": detachment.detachment,
}

__all__ = ["STUDIES", "Verdict"]
