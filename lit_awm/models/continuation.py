"""Whether an episode goes on.

Shape legend: ``...`` any leading dimensions, ``S`` state size.
"""

from __future__ import annotations

from torch import Tensor, nn

from lit_awm.checks import check_count
from lit_awm.models.perceptron import make_perceptron

FIRST_ODDS = 5.0  # logarithm of the odds that an episode goes on where nothing has been learned


class Continuation(nn.Module):
    """Estimate the probability that an episode goes on after a state, for tasks that end when something goes wrong.

    A :class:`~lit_awm.modules.WorldModelModule` fits it to the recorded states in which episodes were terminated, or
    were not (Hafner et al., 2021, arXiv:2010.02193); what ends them has to be seen in those states. Imagined rewards
    then count as far as there is somebody to earn them, and a gradient tells a policy how to go on living.

    Args:
        state_dim: Size ``S`` of a state.
        hidden_dim: Width of the network.
        num_layers: Number of hidden layers.

    Raises:
        ValueError: If a size is below 1.
    """

    def __init__(self, state_dim: int, hidden_dim: int = 64, num_layers: int = 2) -> None:
        super().__init__()
        check_count(1, state_dim=state_dim, hidden_dim=hidden_dim, num_layers=num_layers)
        self.network = make_perceptron([state_dim] + [hidden_dim] * num_layers, 1)
        output = self.network[-1]
        assert isinstance(output, nn.Linear)
        nn.init.zeros_(output.weight)
        nn.init.constant_(output.bias, FIRST_ODDS)

    def forward(self, state: Tensor) -> Tensor:
        """Map states ``(..., S)`` in standard units to log odds ``(...)`` that the episode goes on."""
        return self.network(state).squeeze(-1)


def while_it_goes_on(values: Tensor, survival: Tensor) -> Tensor:
    """Return values weighted by the probability that the episode has not ended; 0, whatever they are, where it has.

    Args:
        values: Of any shape.
        survival: The probability that the episode has not ended until there, of the same shape.
    """
    return values.masked_fill(survival == 0, 0) * survival
