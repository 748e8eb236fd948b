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

from lit_awm.envs import ControlEnv, OdeEnv

Array: TypeAlias = NDArray[np.float64]


class Shooting:
    """An episode of an environment as a function of its controls, in float64 on the CPU.

    Kinks are taken out of the cost and become constraints: a charge for leaving the state bounds becomes
    ``inequality <= 0`` at the end of every interval and, if the target is to be met exactly, the price of missing it
    becomes ``equality = 0``.

    Args:
        env: The environment.
        exact_target: Whether the target state is to be met exactly, instead of paid for.

    Raises:
        ValueError: If the target is to be met exactly and there is none.
    """

    def __init__(self, env: ControlEnv, exact_target: bool = False) -> None:
        self.env, self.exact_target = env, exact_target
        self.smooth = copy.copy(env)  # without the charges that are constraints here
        self.times = torch.arange(env.episode_length, dtype=torch.float64) * env.dt
        self.is_charged = isinstance(env, OdeEnv) and env.bounds == "charge"
        self.targeted = list[int]()
        if isinstance(env, OdeEnv):
            self.targeted = [i for i in range(len(env.target_state)) if not env.target_state[i].isnan()]
            self.target, self.target_scale = env.target_state.numpy(), env.target_scale.numpy()
            self.lowest, self.highest = env.state_bounds.numpy().T
            self.bound_scale = env.bound_scale.numpy()
        if isinstance(self.smooth, OdeEnv) and self.is_charged:
            self.smooth.bounds = "ignore"
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
        state = self.env.initial_state.expand(len(controls), -1)
        total, is_over = controls.new_zeros(len(controls)), torch.zeros(len(controls), dtype=torch.bool)
        with torch.no_grad():
            for time, control in zip(self.times, controls.unbind(1), strict=True):
                state, reward, terminated = self.env.guarded_step(state, control, time.expand(len(controls)))
                total = torch.where(is_over, total, total - reward)
                is_over |= terminated
        return total

    def target_cost(self, controls: Array) -> float:
        """Return what missing the target costs."""
        return self.env.target_cost(self.states(controls)[-1]).item() if self.targeted else 0.0

    def states(self, controls: Array) -> Tensor:
        """Return the states ``(N + 1, n)`` that controls ``(N, m)`` lead to."""
        states = [self.env.initial_state]
        with torch.no_grad():
            for time, control in zip(self.times, torch.from_numpy(controls), strict=True):
                states.append(self.smooth.step_fn(states[-1], control, time)[0])
        return torch.stack(states)

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
        rows = [_gradients(end[:, i].sum(), begin, control) for i in range(end.shape[1])]
        end_by_begin, end_by_control = (np.stack(part, axis=1) for part in zip(*rows, strict=True))
        costate, gradient = by_states[-1], np.empty_like(controls)
        for k in reversed(range(len(controls))):
            gradient[k] = by_control[k] + costate @ end_by_control[k]
            costate = by_begin[k] + by_states[k] + costate @ end_by_begin[k]
        return cost.item(), gradient, states.numpy()

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

    def _multipliers(self, missed: Array, beyond: Array) -> tuple[Array, Array]:
        return self.equality + self.weight * missed, np.maximum(self.inequality + self.weight * beyond, 0)


def _gradients(value: Tensor, *inputs: Tensor) -> tuple[Array, ...]:
    if not value.requires_grad:
        return tuple(np.zeros(i.shape) for i in inputs)
    found = torch.autograd.grad(value, inputs, retain_graph=True, materialize_grads=True)
    return tuple(gradient.numpy() for gradient in found)
