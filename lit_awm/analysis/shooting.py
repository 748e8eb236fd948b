"""Cost of a control sequence and its gradient, by direct single shooting.

Shape legend: ``N`` control intervals, ``n`` physical state size, ``m`` control size, ``B`` batch.
"""

from __future__ import annotations

import copy
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchrl.envs import TransformedEnv

from lit_awm.envs import ControlEnv, OdeEnv

Array: TypeAlias = NDArray[np.float64]

NEWTON_STEPS = 12  # at most
ROUNDING = 1e-13  # relative change of states below which they have converged


class Shooting:
    """An episode of an environment as a function of its controls, in float64 on the CPU.

    Kinks are taken out of the cost and become constraints: a charge for leaving the state bounds becomes
    ``inequality <= 0`` at the end of every interval and, if the target is to be met exactly, the price of missing it
    becomes ``equality = 0``.

    Args:
        env: The environment, as it is or as agents see it.
        exact_target: Whether the target state is to be met exactly, instead of paid for.

    Raises:
        ValueError: If the environment is none of the testbed or not on the CPU, its initial state lies outside of
            bounds that are charged for, or the target is to be met exactly and there is none.
    """

    def __init__(self, env: ControlEnv | TransformedEnv, exact_target: bool = False) -> None:
        env = env.base_env if isinstance(env, TransformedEnv) else env
        if not isinstance(env, ControlEnv):
            raise ValueError(
                f"env must be a system of the testbed, whose dynamics are known, got {type(env).__name__}."
            )
        self.env, self.exact_target = env, exact_target
        if env.device is not None and env.device.type != "cpu":
            raise ValueError(f"env must live on the CPU, got {env.device}. Make it with device='cpu'.")
        self.smooth = copy.copy(env)  # without the charges that are constraints here
        self.smooth.__dict__.pop("interval", None)  # a compiled one belongs to the original
        self.times = torch.arange(env.episode_length, dtype=torch.float64) * env.dt
        self.latest: Tensor | None = None  # states, near those of the next controls
        self.is_charged = isinstance(env, OdeEnv) and env.bounds == "charge"
        self.targeted = list[int]()
        if isinstance(env, OdeEnv):
            self.targeted = [i for i in range(len(env.target_state)) if not env.target_state[i].isnan()]
            self.target, self.target_scale = env.target_state.numpy(), env.target_scale.numpy()
            self.lowest, self.highest = env.state_bounds.numpy().T
            self.bound_scale = env.bound_scale.numpy()
        if isinstance(self.smooth, OdeEnv) and self.is_charged:
            self.smooth.bounds = "ignore"
            if ((env.initial_state < env.state_bounds[:, 0]) | (env.initial_state > env.state_bounds[:, 1])).any():
                raise ValueError(
                    f"x_0 must lie within the state bounds, which are charged for, got {env.initial_state.tolist()}. "
                    "Give another x_0, or bounds='ignore'."
                )
        if exact_target and not self.targeted:
            raise ValueError(f"exact_target must be false for {env.name}, which has no target.")

    @property
    def has_target(self) -> bool:
        """Whether there is a target that counts."""
        return bool(self.targeted) and (self.exact_target or self.env.target_weight > 0)

    @property
    def is_constrained(self) -> bool:
        """Whether there are constraints besides the range of the controls."""
        return self.exact_target or self.is_charged

    def weigh_target(self, share: float) -> None:
        """Set the price of missing the target, as a share of the environment's."""
        if self.has_target:
            self.smooth.target_weight = share * self.env.target_weight

    def costs(self, controls: Tensor) -> Tensor:
        """Return the whole cost ``(B,)`` of control sequences ``(B, N, m)``, as the environment charges it."""
        with torch.no_grad():
            return -self.env.unroll(controls)[1].sum(-1)

    def target_cost(self, controls: Array) -> float:
        """Return what missing the target costs."""
        return self.env.target_cost(self.states(controls)[-1]).item() if self.targeted else 0.0

    def target_error(self, controls: Array) -> float | None:
        """Return by how much the target is missed, see :meth:`~lit_awm.envs.OdeEnv.target_error`; None without one."""
        error = self.env.target_error(self.states(controls)[-1]) if self.targeted else None
        return None if error is None else error.item()

    def states(self, controls: Array) -> Tensor:
        """Return the states ``(N + 1, n)`` that controls ``(N, m)`` lead to.

        Those of the controls before are mostly near, and Newton's method then takes all intervals at once; where it
        does not converge, they are taken one by one.
        """
        states = None if self.latest is None else self._solve_from(self.latest, controls)
        if states is None:
            with torch.no_grad():
                states = self.smooth.unroll(torch.from_numpy(controls))[0]
        self.latest = states
        return states

    def _solve_from(self, states: Tensor, controls: Array) -> Tensor | None:
        """Return the states ``(N + 1, n)`` by Newton's method from some near them, or None if it does not converge."""
        found, control, error = states.numpy().copy(), torch.from_numpy(controls), np.inf
        for _ in range(NEWTON_STEPS):
            begin = torch.from_numpy(found[:-1]).requires_grad_()
            end, _ = self.smooth.step_fn(begin, control, self.times)
            (by_begin,) = _jacobians(end, begin)
            missed, change = end.detach().numpy() - found[1:], np.zeros_like(found)
            with np.errstate(over="ignore", invalid="ignore"):  # of what diverges, which is seen below
                for k in range(len(missed)):
                    change[k + 1] = by_begin[k] @ change[k] + missed[k]
                found = found + change
                before, error = error, float((np.abs(change) / (1 + np.abs(found))).max())
            if error <= ROUNDING:
                return torch.from_numpy(found)
            if not error < before:  # it does not come nearer, or is not finite
                return None
        return None

    def evaluate(
        self, controls: Array, states: Tensor | None = None, by_states: Array | None = None
    ) -> tuple[float, Array, Array]:
        """Return the smooth cost of controls ``(N, m)``, its gradient ``(N, m)`` and the states ``(N + 1, n)``.

        States are unrolled without a graph; then all intervals are linearised at once, and costates run back through
        the Jacobians.

        Args:
            controls: The controls.
            states: The states that they lead to, if they are known.
            by_states: The gradient ``(N + 1, n)`` of something else with respect to the states, to be added in.
        """
        states = self.states(controls) if states is None else states
        by_states = np.zeros(states.shape) if by_states is None else by_states
        begin, control = states[:-1].clone().requires_grad_(), torch.from_numpy(controls).clone().requires_grad_()
        end, reward = self.smooth.step_fn(begin, control, self.times)
        cost = -reward.sum()
        by_begin, by_control = _gradients(cost, begin, control)
        end_by_begin, end_by_control = _jacobians(end, begin, control)
        costate, gradient = by_states[-1], np.empty_like(controls)
        for k in reversed(range(len(controls))):
            gradient[k] = by_control[k] + costate @ end_by_control[k]
            costate = by_begin[k] + by_states[k] + costate @ end_by_begin[k]
        return cost.item(), gradient, states.numpy()

    def cost_and_gradient(self, controls: Array) -> tuple[float, Array]:
        """Return the smooth cost of controls ``(N, m)`` and its gradient ``(N, m)``."""
        return self.evaluate(controls)[:2]

    def constraints(self, states: Array) -> tuple[Array, Array]:
        """Return equality and inequality for states ``(N + 1, n)``, in units of their scales; empty if none."""
        equality = inequality = np.zeros(0)
        if self.exact_target:
            equality = ((states[-1] - self.target) / self.target_scale)[self.targeted]
        if self.is_charged:
            inequality = np.stack([self.lowest - states[1:], states[1:] - self.highest]) / self.bound_scale
        return equality, inequality

    def constraints_by_states(self, equality: Array, inequality: Array) -> Array:
        """Return the gradient ``(N + 1, n)`` of the constraints, weighted by multipliers of their shapes."""
        gradient = np.zeros((self.env.episode_length + 1, len(self.env.initial_state)))
        if self.exact_target:
            gradient[-1, self.targeted] += equality / self.target_scale[self.targeted]
        if self.is_charged:
            gradient[1:] += (inequality[1] - inequality[0]) / self.bound_scale
        return gradient


class AugmentedLagrangian:
    """The smooth cost, plus what the violation of the constraints costs at present multipliers (Hestenes; Powell).

    Args:
        shooting: The problem.
        weight: First weight of the squared violation.
    """

    def __init__(self, shooting: Shooting, weight: float) -> None:
        self.shooting, self.weight, self.violation = shooting, weight, np.inf
        states = np.zeros((shooting.env.episode_length + 1, len(shooting.env.initial_state)))
        self.equality, self.inequality = (np.zeros(part.shape) for part in shooting.constraints(states))

    def __call__(self, controls: Array) -> tuple[float, Array]:
        """Return the value at controls ``(N, m)`` and its gradient."""
        states = self.shooting.states(controls)
        missed, beyond = self.shooting.constraints(states.numpy())
        push, press = self._multipliers(missed, beyond)
        extra = (self.equality * missed).sum() + self.weight / 2 * (missed**2).sum()
        extra += ((press**2).sum() - (self.inequality**2).sum()) / (2 * self.weight)
        by_states = self.shooting.constraints_by_states(push, press)
        cost, gradient, _ = self.shooting.evaluate(controls, states, by_states)
        return cost + extra, gradient

    def update(self, controls: Array) -> float:
        """Adapt the multipliers to a minimum ``controls``, and return its largest violation."""
        missed, beyond = self.shooting.constraints(self.shooting.states(controls).numpy())
        self.equality, self.inequality = self._multipliers(missed, beyond)
        before = self.violation
        self.violation = float(max(np.abs(missed).max(initial=0), beyond.max(initial=0)))
        if self.violation > before / 4:
            self.weight *= 5
        return self.violation

    def check_weight(self) -> None:
        """Reject a charge that is too low to keep an optimum within the bounds.

        Raises:
            ValueError: If leaving the bounds is worth more than ``bound_weight``.
        """
        if not self.shooting.is_charged:
            return
        worth, paid = float(self.inequality.sum(axis=1).max()), self.shooting.env.bound_weight
        if worth > paid:
            raise ValueError(
                f"bound_weight must be at least {worth:.6g}, which leaving the bounds is worth, got {paid}. Raise "
                "`bound_weight`, or ignore the bounds."
            )

    def _multipliers(self, missed: Array, beyond: Array) -> tuple[Array, Array]:
        return self.equality + self.weight * missed, np.maximum(self.inequality + self.weight * beyond, 0)


def _jacobians(value: Tensor, *inputs: Tensor) -> tuple[Array, ...]:
    """Return the derivatives ``(N, n, k)`` of rows ``(N, n)`` with respect to the same rows of inputs ``(N, k)``."""
    rows = [_gradients(value[:, i].sum(), *inputs) for i in range(value.shape[1])]
    return tuple(np.stack(part, axis=1) for part in zip(*rows, strict=True))


def _gradients(value: Tensor, *inputs: Tensor) -> tuple[Array, ...]:
    if not value.requires_grad:
        return tuple(np.zeros(i.shape) for i in inputs)
    found = torch.autograd.grad(value, inputs, retain_graph=True, materialize_grads=True)
    return tuple(gradient.numpy() for gradient in found)
