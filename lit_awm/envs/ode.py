"""Optimal control of ordinary differential equations as batched, differentiable TorchRL environments.

Shape legend: ``n`` physical state size, ``m`` control size, ``N`` number of parallel environments, ``...`` any
leading dimensions.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import Binary, Bounded, Composite, Unbounded
from torchrl.envs import EnvBase

from lit_awm.checks import check_at_least

Integrator = Literal["euler", "rk4"]
INTEGRATORS: tuple[Integrator, ...] = ("euler", "rk4")


class OdeEnv(EnvBase):
    """Steer ``x' = f(x, u)`` for a fixed ``duration`` at little cost ``integral of g(x, u, t) dt + h(x(T))``.

    Controls are constant within each of the ``episode_length`` intervals and the cost is integrated alongside the
    state by the same scheme. The reward of a step is minus its share of the cost, so that the undiscounted return
    of an episode is minus the cost. Every step is a pure, differentiable function of its tensordict.

    A system is a subclass that gives the equations: ``dynamics``, ``running_cost`` and, where there is one,
    ``terminal_cost``. They take and return tensors in physical units, batched over any leading dimensions and in
    any floating type.

    Args:
        initial_state: Published initial state, ``n`` numbers in the units of ``state_names``.
        control_bounds: One ``(low, high)`` pair per control, in physical units.
        state_bounds: One ``(low, high)`` pair per state; the published domain, which rollouts do not enforce.
        duration: Length ``T`` of an episode, in the system's unit of time.
        num_envs: Number ``N`` of environments stepped together.
        episode_length: Number of control intervals in an episode, at least 1.
        initial_spread: Relative half-width, in [0, 1), of the interval around each published initial value from which
            episodes start; 0 starts all of them in the published state.
        integrator: ``"rk4"`` (one classical Runge-Kutta step an interval) or ``"euler"``.
        device: Where all tensors live.
        dtype: Floating type of states, actions and rewards.

    Raises:
        ValueError: If ``num_envs`` or ``episode_length`` is below 1, ``duration`` is not positive, ``initial_spread``
            is outside [0, 1), or ``integrator`` is unknown.
    """

    name: ClassVar[str]
    state_names: ClassVar[tuple[str, ...]]
    control_names: ClassVar[tuple[str, ...]]
    initial_state: Tensor
    control_bounds: Tensor
    state_bounds: Tensor

    def __init__(
        self,
        *,
        initial_state: Sequence[float],
        control_bounds: Sequence[tuple[float, float]],
        state_bounds: Sequence[tuple[float, float]],
        duration: float,
        num_envs: int = 1,
        episode_length: int = 100,
        initial_spread: float = 0.0,
        integrator: Integrator = "rk4",
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        check_at_least(1, num_envs=num_envs, episode_length=episode_length)
        if duration <= 0:
            raise ValueError(f"duration must be positive, got {duration}.")
        if not 0 <= initial_spread < 1:
            raise ValueError(f"initial_spread must be at least 0 and below 1, got {initial_spread}.")
        if integrator not in INTEGRATORS:
            raise ValueError(f"integrator must be one of {', '.join(INTEGRATORS)}, got {integrator!r}.")
        super().__init__(device=device, batch_size=[num_envs])
        constants = {"initial_state": initial_state, "control_bounds": control_bounds, "state_bounds": state_bounds}
        for key, constant in constants.items():
            self.register_buffer(key, torch.tensor(constant, dtype=torch.float64, device=device))
        self.duration = float(duration)
        self.episode_length = episode_length
        self.dt = self.duration / episode_length
        self.initial_spread = initial_spread
        self.integrator = integrator
        self.float_type = dtype
        self._make_specs()
        self.set_seed(0)

    # -- The physics, in physical units -------------------------------------------------------------------------

    @abstractmethod
    def dynamics(self, state: Tensor, control: Tensor) -> Tensor:
        """Return ``f(x, u)``, the rate of change of the state ``(..., n)`` under the control ``(..., m)``."""

    @abstractmethod
    def running_cost(self, state: Tensor, control: Tensor, time: Tensor) -> Tensor:
        """Return ``g(x, u, t)``, the cost per unit of time, shape ``(...)``."""

    def terminal_cost(self, state: Tensor) -> Tensor:
        """Return ``h(x(T))``, the cost of the final state, shape ``(...)``; zero unless a system says otherwise."""
        return torch.zeros_like(state[..., 0])

    def step_fn(self, state: Tensor, control: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        """Integrate one control interval.

        Args:
            state: Physical state ``(..., n)`` at the beginning of the interval.
            control: Physical control ``(..., m)``, constant within the interval.
            time: Time ``(...)`` at the beginning of the interval.

        Returns:
            The state ``(..., n)`` at the end, and the reward ``(...)``: minus the cost integrated over the
            interval, and minus the terminal cost if the episode ends with it.
        """

        def rates(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
            return self.dynamics(x, control), self.running_cost(x, control, t)

        dt = self.dt
        k1, c1 = rates(state, time)
        if self.integrator == "euler":
            next_state, cost = state + dt * k1, dt * c1
        else:
            k2, c2 = rates(state + dt / 2 * k1, time + dt / 2)
            k3, c3 = rates(state + dt / 2 * k2, time + dt / 2)
            k4, c4 = rates(state + dt * k3, time + dt)
            next_state = state + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
            cost = dt / 6 * (c1 + 2 * c2 + 2 * c3 + c4)
        return next_state, -cost - self._terminal_share(next_state, time)

    def reward_between(self, state: Tensor, control: Tensor, next_state: Tensor, time: Tensor) -> Tensor:
        """Return the reward ``(...)`` of an interval from the states at its two ends, without the dynamics.

        The running cost is summed by the rule that needs no state in between: for ``"euler"`` the left end, which
        is exact, for ``"rk4"`` the trapezoid, whose error over an episode is of second order in ``dt``.
        """
        cost = self.running_cost(state, control, time)
        if self.integrator == "rk4":
            cost = (cost + self.running_cost(next_state, control, time + self.dt)) / 2
        return -self.dt * cost - self._terminal_share(next_state, time)

    def _is_last_interval(self, time: Tensor) -> Tensor:
        return time > self.duration - 1.5 * self.dt

    def _terminal_share(self, next_state: Tensor, time: Tensor) -> Tensor:
        cost = self.terminal_cost(next_state)
        return torch.where(self._is_last_interval(time), cost, torch.zeros_like(cost))

    # -- TorchRL --------------------------------------------------------------------------------------------------

    def _make_specs(self) -> None:
        batch, device, dtype = self.batch_size, self.device, self.float_type

        def unbounded(size: int) -> Unbounded:
            return Unbounded((*batch, size), device=device, dtype=dtype)

        self.observation_spec = Composite(state=unbounded(len(self.initial_state)), time=unbounded(1), shape=batch)
        self.state_spec = self.observation_spec.clone()
        low, high = self.control_bounds.to(dtype).expand(*batch, -1, 2).unbind(-1)
        self.action_spec = Bounded(low, high, (*batch, len(self.control_bounds)), device=device, dtype=dtype)
        self.reward_spec = unbounded(1)
        done = Binary(1, (*batch, 1), device=device, dtype=torch.bool)
        self.done_spec = Composite(done=done, terminated=done.clone(), truncated=done.clone(), shape=batch)

    def _reset(self, tensordict: TensorDictBase | None = None, **_: object) -> TensorDict:
        initial = self.initial_state.to(self.float_type).expand(*self.batch_size, -1)
        uniform = torch.rand(initial.shape, generator=self.rng, device=self.device, dtype=self.float_type)
        state = initial * (1 + self.initial_spread * (2 * uniform - 1))  # where to use it, `reset` decides
        time = state.new_zeros(*self.batch_size, 1)
        return TensorDict({"state": state, "time": time}, self.batch_size, device=self.device)

    def _step(self, tensordict: TensorDictBase) -> TensorDict:
        time = tensordict["time"]
        state, reward = self.step_fn(tensordict["state"], tensordict["action"], time.squeeze(-1))
        truncated = self._is_last_interval(time)
        return TensorDict(
            {
                "state": state,
                "time": time + self.dt,
                "reward": reward.unsqueeze(-1),
                "done": truncated,
                "terminated": torch.zeros_like(truncated),
                "truncated": truncated.clone(),
            },
            self.batch_size,
            device=self.device,
        )

    def _set_seed(self, seed: int | None) -> None:
        self.rng = torch.Generator(self.device).manual_seed(seed or 0)
