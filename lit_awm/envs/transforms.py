"""What an agent sees besides the state, for any environment: a clock, irrelevant dimensions, noise."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.data import TensorSpec, Unbounded
from torchrl.envs import Transform

from lit_awm.checks import check_at_least, check_count, check_positive


def _normal(shape: Sequence[int], like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Return unit normal noise on the device and in the type of ``like``, wherever the generator lives."""
    device = like.device if generator is None else generator.device
    return torch.randn(shape, generator=generator, device=device, dtype=like.dtype).to(like.device)


class Clock(Transform):
    """Write a clock that runs evenly from -1 at the beginning of an episode to 1 at its end.

    Args:
        length: What ``in_key`` has reached when an episode ends, positive.
        in_key: What counts the time from 0: TorchRL's ``StepCounter``, or the ``time`` of a ``ControlEnv``.
        out_key: Where to write the clock.
    """

    def __init__(self, length: float, in_key: str = "step_count", out_key: str = "clock") -> None:
        check_positive(length=length)
        super().__init__(in_keys=[in_key], out_keys=[out_key])
        self.length = length

    def _apply_transform(self, obs: Tensor) -> Tensor:
        return 2 / self.length * obs - 1

    def _reset(self, tensordict: TensorDictBase, tensordict_reset: TensorDictBase) -> TensorDictBase:
        return self._call(tensordict_reset)

    def transform_observation_spec(self, observation_spec: TensorSpec) -> TensorSpec:
        """Add the clock to what is observed."""
        counter = observation_spec[self.in_keys[0]]
        dtype = counter.dtype if counter.dtype.is_floating_point else torch.get_default_dtype()
        observation_spec[self.out_keys[0]] = Unbounded(counter.shape, device=counter.device, dtype=dtype)
        return observation_spec


class DistractorDimensions(Transform):
    """Write a vector of standard normal noise, drawn anew at every step, that has nothing to do with the task.

    Args:
        count: Number of dimensions, at least 1.
        out_key: Where to write them.
        generator: Source of the noise; None for torch's own.

    Example:
        >>> from torchrl.envs import TransformedEnv
        >>> from lit_awm.envs.myriad import Harvest
        >>> TransformedEnv(Harvest(num_envs=2), DistractorDimensions(3)).reset()["distractors"].shape
        torch.Size([2, 3])
    """

    def __init__(self, count: int, out_key: str = "distractors", generator: torch.Generator | None = None) -> None:
        check_count(1, count=count)
        super().__init__(in_keys=[], out_keys=[out_key])
        self.count, self.generator = count, generator

    def _call(self, next_tensordict: TensorDictBase) -> TensorDictBase:
        like = next(value for value in next_tensordict.values(True, True) if value.is_floating_point())
        shape = (*next_tensordict.batch_size, self.count)
        return next_tensordict.set(self.out_keys[0], _normal(shape, like, self.generator))

    def _reset(self, tensordict: TensorDictBase, tensordict_reset: TensorDictBase) -> TensorDictBase:
        return self._call(tensordict_reset)

    def transform_observation_spec(self, observation_spec: TensorSpec) -> TensorSpec:
        """Add the dimensions to what is observed."""
        dtype = next(spec.dtype for spec in observation_spec.values(True, True) if spec.dtype.is_floating_point)
        shape = (*observation_spec.shape, self.count)
        observation_spec[self.out_keys[0]] = Unbounded(shape, device=observation_spec.device, dtype=dtype)
        return observation_spec


class ObservationNoise(Transform):
    """Write a copy of an entry with normal noise added; what the environment goes on from stays as it is.

    Args:
        std: Standard deviation of the noise, at least 0: one number, or one for each dimension; in the entry's units.
        in_key: The entry.
        out_key: Where to write the noisy copy.
        generator: Source of the noise; None for torch's own.
    """

    def __init__(
        self,
        std: float | Sequence[float],
        in_key: str = "state",
        out_key: str = "noisy_state",
        generator: torch.Generator | None = None,
    ) -> None:
        for value in [std] if isinstance(std, (int, float, str)) else std:
            check_at_least(0, observation_noise=value)
        super().__init__(in_keys=[in_key], out_keys=[out_key])
        self.generator = generator
        self.register_buffer("std", torch.as_tensor(std))

    def check_size(self, size: int) -> None:
        """Raise a ``ValueError`` if there is neither one number nor one for each of ``size`` dimensions."""
        if self.std.numel() not in (1, size) or self.std.ndim > 1:
            raise ValueError(
                f"observation_noise must be one number, or {size}, one for each dimension of the state, got "
                f"{self.std.tolist()}."
            )

    def _apply_transform(self, obs: Tensor) -> Tensor:
        return obs + self.std.to(obs) * _normal(obs.shape, obs, self.generator)

    def _reset(self, tensordict: TensorDictBase, tensordict_reset: TensorDictBase) -> TensorDictBase:
        return self._call(tensordict_reset)

    def transform_observation_spec(self, observation_spec: TensorSpec) -> TensorSpec:
        """Add the noisy copy, without bounds, to what is observed."""
        clean = observation_spec[self.in_keys[0]]
        self.check_size(clean.shape[-1])
        observation_spec[self.out_keys[0]] = Unbounded(clean.shape, device=clean.device, dtype=clean.dtype)
        return observation_spec
