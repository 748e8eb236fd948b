"""Draw what the policy does in the real environment beside what would be optimal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from matplotlib.figure import Figure
from tensordict import TensorDict
from torch import Tensor
from torchrl.envs import TransformedEnv

from lit_awm.envs import ControlEnv, Optimum

MAX_COLUMNS = 4


class TrajectoryFigure(Callback):
    """Write ``trajectory.png`` into the log directory: states and controls of the last evaluation, and the optimum's.

    It is drawn at the end of ``fit`` or ``validate``, from an evaluation that an ``ExperienceDataModule`` made in a
    system of the testbed.
    """

    def __init__(self) -> None:
        self._evaluation: TensorDict | None = None

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        if isinstance(batch, TensorDict) and "episode" in batch.keys():
            self._evaluation = batch

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "validate":
            self.on_train_end(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        log_dir = trainer.log_dir  # a collective call
        if self._evaluation is None or log_dir is None or not trainer.is_global_zero:
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(data.eval_env.base_env, ControlEnv):
            return  # states of other packages' tasks have neither names nor an optimum
        figure = draw_trajectory(data.eval_env, self._evaluation, data.optimum)
        Path(log_dir).mkdir(parents=True, exist_ok=True)
        figure.savefig(Path(log_dir) / "trajectory.png", dpi=120)


def draw_trajectory(
    env: TransformedEnv, evaluation: TensorDict, optimum: Optimum | None, label: str = "learned policy"
) -> Figure:
    """Return a figure of the first episode of an evaluation, in physical units, with the optimum dashed."""
    names = [*env.state_names, *env.control_names]
    learned = _columns(env, evaluation["episode"][0])
    title = f"{env.name}: cost {evaluation['cost'][0].item():.5g}"
    best = None
    if optimum is not None:
        controls = torch.tensor(optimum.controls, dtype=torch.float64)
        states, _ = env.unroll(controls)
        best = [*states.unbind(-1), *controls.unbind(-1)]
        title += f", optimum {optimum.cost:.5g}"
    columns = min(len(names), MAX_COLUMNS)
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(3.6 * columns, 2.8 * rows + 0.4), layout="constrained")
    figure.suptitle(title)
    for index, name in enumerate(names):
        axes = figure.add_subplot(rows, columns, index + 1)
        is_state = index < len(env.state_names)
        time = torch.linspace(0, env.duration, env.episode_length + 1)[: None if is_state else -1]
        style: dict[str, Any] = {} if is_state else {"drawstyle": "steps-post"}
        axes.plot(time[: len(learned[index])], learned[index].cpu(), label=label, **style)
        if best is not None:
            axes.plot(time, best[index].cpu(), "--", label="optimum", **style)
        axes.set(xlabel="time", title=name)
        axes.grid(alpha=0.3)
    figure.axes[0].legend()
    return figure


def _columns(env: TransformedEnv, episode: TensorDict) -> list[Tensor]:
    is_over = episode["next", "done"].flatten().nonzero()
    episode = episode[: is_over[0] + 1] if len(is_over) else episode  # a domain that was left ends an episode early
    states = torch.cat([episode["state"], episode["next", "state"][-1:]])
    low, high = env.control_bounds.cpu().unbind(-1)
    controls = low + (episode["action"].cpu() + 1) / 2 * (high - low)
    return [*states.unbind(-1), *controls.unbind(-1)]
