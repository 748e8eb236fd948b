"""Receding-horizon control: plan a few steps ahead with the exact model, take the first one, plan again."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor
from torchrl.envs import TransformedEnv
from tqdm import tqdm

from lit_awm.analysis.shooting import Array, Shooting
from lit_awm.checks import check_count
from lit_awm.envs import ControlEnv

STARTS = (0.0, 0.5, 1.0)  # as shares of the range of the controls, beside the plan of the step before
MAX_ITERATIONS = 100


def receding_horizon_cost(env: ControlEnv | TransformedEnv, lookahead: int, progress: bool = False) -> float:
    """Return what an episode costs if every control is the first of the best ``lookahead`` ones from where it is.

    This is how well one does without looking further ahead, however exact the model: what is paid or earned later does
    not count. Plans are found by L-BFGS-B in float64 from constant controls and from the rest of the last plan. With
    the whole episode ahead it is the optimum, as far as these starts find it.

    Args:
        env: An environment of the testbed.
        lookahead: Number of steps to look ahead, at least 1.
        progress: Whether to show a progress bar.

    Raises:
        ValueError: If ``lookahead`` is below 1, or the environment is none of the testbed.

    Example:
        >>> from lit_awm.envs.myriad import SimpleCase
        >>> round(receding_horizon_cost(SimpleCase(episode_length=20), lookahead=20), 2)
        -1.35
    """
    check_count(1, lookahead=lookahead)
    system = Shooting(env).env
    low, high = system.control_bounds.unbind(-1)
    state, cost, plan = system.initial_state.double(), 0.0, None
    length = system.episode_length
    for step in tqdm(range(length), system.name, disable=not progress, leave=False):
        count = min(lookahead, length - step)
        plan = _plan(system, state, step, count, plan)
        with torch.no_grad():
            control = low + torch.from_numpy(plan[0]) * (high - low)
            state, reward, is_over = system.guarded_step(state, control, torch.tensor(step * system.dt).double())
        cost -= reward.item()
        if is_over:
            break
    return cost


def _plan(system: ControlEnv, state: Tensor, step: int, count: int, before: Array | None) -> Array:
    """Return the best controls ``(count, m)`` found, as shares of their range."""
    low, high = system.control_bounds.unbind(-1)
    shape = (count, len(low))

    def cost_and_gradient(shares: Array) -> tuple[float, Array]:
        leaf = torch.from_numpy(shares.reshape(shape)).requires_grad_()
        at, total = state, leaf.new_zeros(())
        for ahead, control in enumerate((low + leaf * (high - low)).unbind()):
            time = torch.tensor((step + ahead) * system.dt, dtype=torch.float64)
            at, reward, is_over = system.guarded_step(at, control, time)
            total = total - reward
            if is_over:
                break
        (gradient,) = torch.autograd.grad(total, leaf)
        return total.item(), gradient.numpy().ravel()

    starts = [np.full(shape, share) for share in STARTS]
    if before is not None:
        rest = before[1 : count + 1]
        starts.append(np.concatenate([rest, rest[-1:].repeat(count - len(rest), 0)]) if len(rest) else starts[0])
    bounds = [(0.0, 1.0)] * (count * len(low))
    options = {"maxiter": MAX_ITERATIONS}
    found = [
        minimize(cost_and_gradient, start.ravel(), jac=True, method="L-BFGS-B", bounds=bounds, options=options)
        for start in starts
    ]
    best: Array = min(found, key=lambda each: float(each.fun)).x.reshape(shape)
    return best
