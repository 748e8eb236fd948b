"""Control tasks of fixed length as batched, differentiable TorchRL environments.

Shape legend: ``n`` physical state size, ``m`` control size, ``N`` number of parallel environments, ``...`` any
leading dimensions.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import Binary, Bounded, Composite, Unbounded
from torchrl.envs import EnvBase

from lit_awm.checks import check_count, check_finite, check_number, check_positive

DIVERGED = 1e3  # a state this many times beyond its scale has diverged


def _floating_type(dtype: torch.dtype | str) -> torch.dtype:
    found = getattr(torch, dtype.removeprefix("torch."), None) if isinstance(dtype, str) else dtype
    if not (isinstance(found, torch.dtype) and found.is_floating_point):
        raise ValueError(f"dtype must be a floating type, such as float32 or float64, got {dtype!r}.")
    return found


class ControlEnv(EnvBase):
    """Control a deterministic system for ``episode_length`` intervals at little cost.

    The reward of a step is minus its share of the cost, so that the undiscounted return of an episode is minus its
    cost. Every step is a pure, differentiable function of its tensordict. A subclass gives the mathematics of one
    interval in ``interval``, and the reward as a function of its two ends in ``reward_between``.

    A step that would leave the ``domain``, or whose result is not a finite number, ends the episode with
    ``terminated``: the state stays where it was, the step costs ``exit_cost``, and no gradient flows through it.

    Args:
        initial_state: Published initial state, ``n`` numbers in the units of ``state_names``.
        control_bounds: One ``(low, high)`` pair per control, in physical units.
        duration: Length ``T`` of an episode, in the system's unit of time.
        state_bounds: One ``(low, high)`` pair per state; the published bounds, infinite by default.
        domain: One ``(low, high)`` pair per state: the open interval in which the equations hold. An infinite end, the
            default, is replaced by a thousand times the largest of 1, the initial state and the finite state bounds.
        num_envs: Number ``N`` of environments stepped together.
        episode_length: Number of control intervals in an episode, at least 1.
        dt: Length of an interval, positive. None divides ``duration`` evenly; if given, an episode lasts
            ``episode_length * dt`` whatever ``duration`` says.
        initial_spread: Relative half-width, in [0, 1), of the interval around each published initial value from which
            episodes start; 0 starts all of them in the published state. A published value of 0 stays 0.
        exit_cost: Cost, finite, of a step that leaves the domain. So that leaving does not pay, it has to be more than
            staying inside can cost.
        device: Where all tensors live.
        dtype: Floating type of states, actions and rewards, or its name, as ``float64``.

    Raises:
        ValueError: If ``num_envs`` or ``episode_length`` is no whole number from 1 on, ``duration`` or ``dt`` is not
            positive and finite, ``initial_spread`` is outside [0, 1), ``exit_cost`` is not finite, or the initial state
            has the wrong shape or lies outside the domain. A step raises it for an action of the wrong shape or outside
            the control bounds.
    """

    name: ClassVar[str]
    state_names: ClassVar[tuple[str, ...]]
    control_names: ClassVar[tuple[str, ...]]
    fixed_options: ClassVar[tuple[str, ...]] = ()  # inherited options that a system does not have
    initial_state: Tensor
    control_bounds: Tensor
    state_bounds: Tensor
    domain: Tensor
    _lowest: Tensor
    _highest: Tensor

    def __init__(
        self,
        *,
        initial_state: Sequence[float],
        control_bounds: Sequence[tuple[float, float]],
        duration: float,
        state_bounds: Sequence[tuple[float, float]] | None = None,
        domain: Sequence[tuple[float, float]] | None = None,
        num_envs: int = 1,
        episode_length: int = 100,
        dt: float | None = None,
        initial_spread: float = 0.0,
        exit_cost: float = 1e4,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | str = torch.float32,
    ) -> None:
        check_count(num_envs=num_envs, episode_length=episode_length)
        check_positive(duration=duration, **({} if dt is None else {"dt": dt}))
        check_number(initial_spread=initial_spread)
        check_finite(exit_cost=exit_cost)
        if not 0 <= initial_spread < 1:
            raise ValueError(f"initial_spread must be at least 0 and below 1, got {initial_spread}.")
        dtype = _floating_type(dtype)
        super().__init__(device=device, batch_size=[num_envs])
        everywhere = [(-math.inf, math.inf)] * len(self.state_names)
        self._add_constant("initial_state", initial_state)
        self._check_size("x_0", self.initial_state)
        self._add_constant("control_bounds", control_bounds)
        self._add_constant("state_bounds", state_bounds or everywhere)
        limit = self.state_bounds.abs().where(self.state_bounds.isfinite(), 0).amax(-1)
        limit = DIVERGED * torch.maximum(limit, self.initial_state.abs()).clamp_min(1)
        self._add_constant("domain", domain or everywhere)
        self.domain = self.domain.where(self.domain.isfinite(), torch.stack([-limit, limit], dim=-1))
        if not self.is_inside(self.initial_state):
            raise ValueError(
                f"x_0 must lie inside the domain {self.domain.tolist()}, got {self.initial_state.tolist()}."
            )
        self.dt = duration / episode_length if dt is None else float(dt)
        self.duration = float(duration) if dt is None else episode_length * self.dt
        self.episode_length, self.initial_spread, self.exit_cost = episode_length, initial_spread, float(exit_cost)
        self.float_type = dtype
        self.rng = torch.Generator(self.device)
        self._make_specs()
        self.set_seed(0)

    def _add_constant(self, name: str, values: Sequence[object]) -> None:
        self.register_buffer(name, torch.tensor(values, dtype=torch.float64, device=self.device))

    def _check_size(self, name: str, state: Tensor) -> None:
        if state.shape != (len(self.state_names),):
            raise ValueError(
                f"{name} must give one number for each of {', '.join(self.state_names)}, got {state.tolist()}."
            )

    # -- The system, in physical units ------------------------------------------------------------------------------

    @abstractmethod
    def interval(self, state: Tensor, control: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        """Return the state ``(..., n)`` at the end of an interval and its cost ``(...)``, wherever it leads."""

    @abstractmethod
    def reward_between(self, state: Tensor, control: Tensor, next_state: Tensor, time: Tensor) -> Tensor:
        """Return the reward ``(...)`` of an interval from the states at its two ends, without the dynamics."""

    def solution(self) -> Tensor | None:
        """Return optimal controls ``(episode_length, m)`` where they are known in closed form, otherwise None."""
        return None

    def step_fn(self, state: Tensor, control: Tensor, time: Tensor | float) -> tuple[Tensor, Tensor]:
        """Take one control interval.

        Leading dimensions broadcast, so there is no need for ``vmap``, which cannot see whether the domain was left.

        Args:
            state: Physical state ``(..., n)`` at the beginning of the interval.
            control: Physical control ``(..., m)``, constant within the interval.
            time: Time ``(...)`` at the beginning of the interval.

        Returns:
            The state ``(..., n)`` at the end, and the reward ``(...)``: minus the cost of the interval, and minus
            what is paid at the end of an episode if it is the last. Both are finite, see ``exit_cost``.

        Raises:
            ValueError: If ``state`` does not end in ``n`` values or ``control`` in ``m``.
        """
        for name, value, names in (("state", state, self.state_names), ("control", control, self.control_names)):
            if value.shape[-1:] != (len(names),):
                raise ValueError(
                    f"{name} must end in one value for each of {', '.join(names)}, got shape {tuple(value.shape)}."
                )
        time = torch.as_tensor(time, dtype=state.dtype, device=state.device)
        next_state, reward, _ = self.guarded_step(state, control, time)
        return next_state, reward

    def guarded_step(self, state: Tensor, control: Tensor, time: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what ``step_fn`` returns, and where ``(...)`` the episode is over because the domain was left."""
        next_state, cost = self.interval(state, control, time)
        inside = self.is_inside(next_state) & cost.isfinite()
        if inside.all():
            return next_state, -cost, ~inside
        keep = inside.unsqueeze(-1)
        if next_state.requires_grad or cost.requires_grad:  # a NaN must not reach the gradient of its neighbours
            kept_state, kept_control = (torch.where(keep, value, value.detach()) for value in (state, control))
            next_state, cost = self.interval(kept_state, kept_control, time)
        stay = torch.where(keep, next_state, state.detach())
        return stay, -torch.where(inside, cost, torch.full_like(cost, self.exit_cost)), ~inside

    def unroll(self, controls: Tensor) -> tuple[Tensor, Tensor]:
        """Run episodes from the published initial state.

        Args:
            controls: Physical controls ``(..., N, m)``, one for each of the ``N`` intervals of an episode.

        Returns:
            The states ``(..., N + 1, n)`` and the rewards ``(..., N)``. Once the domain was left the state stays and
            rewards are 0.
        """
        batch = controls.shape[:-2]
        states, rewards = [self.initial_state.to(controls).expand(*batch, -1)], []
        is_over = torch.zeros(batch, dtype=torch.bool, device=controls.device)
        for step, control in enumerate(controls.unbind(-2)):
            state, reward, left = self.guarded_step(states[-1], control, controls.new_full(batch, step * self.dt))
            states.append(state)
            rewards.append(torch.where(is_over, 0, reward))
            is_over = is_over | left
        return torch.stack(states, dim=-2), torch.stack(rewards, dim=-1)

    def is_inside(self, state: Tensor) -> Tensor:
        """Tell which states ``(..., n)`` lie inside the domain of the equations; shape ``(...)``."""
        low, high = self._like(self.domain, state)
        return ((state > low) & (state < high)).all(-1)

    def _like(self, bounds: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        low, high = bounds.to(value).unbind(-1)
        return low, high

    def is_last_interval(self, time: Tensor) -> Tensor:
        """Tell whether the interval that begins at a time ``(...)`` is the last of an episode."""
        return time > self.duration - 1.5 * self.dt

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
        margin = 1e-5 * (self.control_bounds[:, 1] - self.control_bounds[:, 0])  # for rounding
        self.register_buffer("_lowest", (self.control_bounds[:, 0] - margin).to(dtype))
        self.register_buffer("_highest", (self.control_bounds[:, 1] + margin).to(dtype))

    def _check_action(self, control: Tensor) -> None:
        if control.shape != (*self.batch_size, len(self._lowest)):
            raise ValueError(
                f"action must have shape {(*self.batch_size, len(self._lowest))}, one value for each of "
                f"{', '.join(self.control_names)} in each environment, got {tuple(control.shape)}."
            )
        if not ((control >= self._lowest) & (control <= self._highest)).all():
            raise ValueError(
                f"action must lie within the control bounds {self.control_bounds.tolist()} of {self.name}, got values "
                f"from {control.min().item():g} to {control.max().item():g}. Clamp it first; in an environment from "
                "`make_env` actions lie in [-1, 1] and are scaled to these bounds."
            )

    def _reset(self, tensordict: TensorDictBase | None = None, **_: object) -> TensorDict:
        initial = self.initial_state.to(self.float_type).expand(*self.batch_size, -1)
        uniform = torch.rand(initial.shape, generator=self.rng, device=self.rng.device, dtype=self.float_type)
        spread = self.initial_spread * (2 * uniform - 1)
        state = initial * (1 + spread.to(initial.device))  # where to use it, `reset` decides
        time = state.new_zeros(*self.batch_size, 1)
        return TensorDict({"state": state, "time": time}, self.batch_size, device=self.device)

    def _step(self, tensordict: TensorDictBase) -> TensorDict:
        time, control = tensordict["time"], tensordict["action"]
        self._check_action(control)
        state, reward, is_over = self.guarded_step(tensordict["state"], control, time.squeeze(-1))
        terminated = is_over.unsqueeze(-1)
        truncated = self.is_last_interval(time) & ~terminated
        return TensorDict(
            {
                "state": state,
                "time": ((time / self.dt).round() + 1) * self.dt,  # counted, so that no error adds up
                "reward": reward.unsqueeze(-1),
                "done": terminated | truncated,
                "terminated": terminated,
                "truncated": truncated,
            },
            self.batch_size,
            device=self.device,
        )

    def _set_seed(self, seed: int | None) -> None:
        self.rng.manual_seed(seed or 0)
