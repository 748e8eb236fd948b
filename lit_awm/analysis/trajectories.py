"""Figures of episodes: states and controls over time, beside the optimum and what a world model imagines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from lightning.pytorch import LightningModule
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from tensordict import TensorDict
from torch import Tensor
from torchrl.envs import TransformedEnv

from lit_awm.envs import ControlEnv, Optimum
from lit_awm.modules import AlternatingModule, PolicyModule

MAX_COLUMNS, MAX_STATES = 4, 12  # panels in a row, and states that are drawn


@torch.no_grad()
def imagine_states(module: LightningModule, evaluation: TensorDict) -> Tensor | None:
    """Return the physical states ``(T + 1, n)`` that a module imagines for the actions of the first episode.

    They are those of the first steps where the episode has more than the model has positions; None if the module has no
    policy that is optimised in a world model.
    """
    module = module.policy if isinstance(module, AlternatingModule) else module
    if not isinstance(module, PolicyModule):
        return None
    world_model = module.world_model
    episode = first_episode(evaluation)[: world_model.max_horizon]
    like = world_model.state_scaler.mean
    start, actions = episode["observation"][:1].to(like), episode["action"].unsqueeze(0).to(like)
    _, states, _ = world_model.extend(world_model.start(start, len(episode)), actions)
    return torch.cat([start, states[0]])[:, : episode["state"].shape[-1]].cpu()


def first_episode(evaluation: TensorDict) -> TensorDict:
    """Return the steps ``(T,)`` of the first episode of an evaluation, up to its end."""
    episode = evaluation["episode"][0]
    is_over = episode["next", "done"].flatten().nonzero()
    return episode[: int(is_over[0]) + 1] if len(is_over) else episode


def draw_trajectory(
    env: TransformedEnv,
    evaluation: TensorDict,
    optimum: Optimum | None = None,
    label: str = "learned policy",
    imagined: Tensor | None = None,
) -> Figure:
    """Return a figure of the first episode of an evaluation.

    A system of ours is drawn in physical units, with the optimum dashed, a task of another package by number and step.

    Args:
        env: The environment.
        evaluation: What :func:`~lit_awm.data.evaluate` returned.
        optimum: The optimum, where it is known.
        label: What has acted.
        imagined: States ``(T + 1, n)`` that a world model has imagined, to be drawn dotted.
    """
    names, learned = _columns(env, first_episode(evaluation))
    states = len(names) - env.action_spec.shape[-1]
    title = f"{env.name}: cost {evaluation['cost'][0].item():.5g}"
    best: list[Tensor] | None = None
    if optimum is not None:
        controls = torch.tensor(optimum.controls, dtype=torch.float64)
        best = [*env.unroll(controls)[0].unbind(-1), *controls.unbind(-1)]
        title += f", optimum {optimum.cost:.5g}"
    columns = min(len(names), MAX_COLUMNS)
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(3.6 * columns, 2.8 * rows + 0.4), layout="constrained")
    figure.suptitle(title)
    length = env.duration if isinstance(env.base_env, ControlEnv) else env.episode_length
    time = torch.linspace(0, length, env.episode_length + 1)
    for index, name in enumerate(names):
        axes = figure.add_subplot(rows, columns, index + 1)
        style: dict[str, Any] = {} if index < states else {"drawstyle": "steps-post"}
        axes.plot(time[: len(learned[index])], learned[index].cpu(), label=label, **style)
        if best is not None:
            axes.plot(time[: len(best[index])], best[index].cpu(), "--", label="optimum", **style)
        if imagined is not None and index < states:
            axes.plot(time[: len(imagined)], imagined[:, index], ":", color="C2", label="imagined")
        axes.set(xlabel="time" if isinstance(env.base_env, ControlEnv) else "step", title=name)
        axes.grid(alpha=0.3)
    figure.axes[0].legend()
    return figure


def animate(figure: Figure, count: int) -> Iterator[Image.Image]:
    """Yield ``count`` images in which what has been learned grows from its beginning, and the rest stands still."""
    canvas: Any = FigureCanvasAgg(figure)  # whose methods have no types
    canvas.draw()
    figure.set_layout_engine("none")  # what has been laid out once stays
    lines = [axes.lines[0] for axes in figure.axes]
    whole = [np.asarray(line.get_xydata()) for line in lines]
    points = [axes.plot([], [], "o", color=line.get_color())[0] for axes, line in zip(figure.axes, lines, strict=True)]
    for frame in range(count):
        for line, point, rows in zip(lines, points, whole, strict=True):
            until = 1 + round(frame / max(count - 1, 1) * (len(rows) - 1))
            line.set_data(rows[:until, 0], rows[:until, 1])
            point.set_data(rows[until - 1 : until, 0], rows[until - 1 : until, 1])
        canvas.draw()
        yield Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


def save_animation(
    images: Sequence[Image.Image], file: Path | BinaryIO, frames_per_second: float, form: str | None = None
) -> None:
    """Write images as an animated GIF, WebP or PNG; it is played again and again.

    Args:
        images: One at least.
        file: Where to; the name of a path ends in what it is to be.
        frames_per_second: How fast it is played.
        form: Its kind where there is no name to tell, as ``"GIF"``.
    """
    first, *rest = images
    first.save(file, form, save_all=True, append_images=rest, duration=round(1000 / frames_per_second), loop=0)


def _columns(env: TransformedEnv, episode: TensorDict) -> tuple[list[str], list[Tensor]]:
    """Return the names and values of states and controls."""
    states = torch.cat([episode["state"], episode["next", "state"][-1:]])
    if not isinstance(env.base_env, ControlEnv):
        states = states[:, :MAX_STATES]
        names = [f"state {index + 1}" for index in range(states.shape[-1])]
        names += [f"action {index + 1}" for index in range(episode["action"].shape[-1])]
        return names, [*states.unbind(-1), *episode["action"].unbind(-1)]
    low, high = env.control_bounds.cpu().unbind(-1)
    controls = low + (episode["action"].cpu() + 1) / 2 * (high - low)
    return [*env.state_names, *env.control_names], [*states.unbind(-1), *controls.unbind(-1)]
