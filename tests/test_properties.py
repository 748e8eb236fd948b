"""What holds for shapes, masks, slices, schedules and file contents of any size, searched by Hypothesis."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import Trainer
from tensordict import TensorDict

from lit_awm.callbacks import HorizonCurriculum
from lit_awm.checkpoints import SafeCheckpointIO
from lit_awm.checkpoints.files import DamagedFileError
from lit_awm.data import ExperienceDataModule
from lit_awm.imagination import imagine
from lit_awm.loops import AlternatingLoop
from lit_awm.models import (
    ActionsWorldModel,
    AttentionBackbone,
    CausalTransformer,
    DeterministicPolicy,
    HistoryWorldModel,
    MarkovWorldModel,
    RecurrentBackbone,
    StateSpaceBackbone,
    TanhNormalPolicy,
    WorldModel,
)
from lit_awm.modules import CosineRestarts, LinearSchedule, WorldModelModule

few = settings(max_examples=15, deadline=None, derandomize=True, database=None)
many = settings(max_examples=100, deadline=None, derandomize=True, database=None)
small = st.integers(1, 5)
BACKBONES: dict[str, Any] = {
    "transformer": lambda horizon: CausalTransformer(4, 1, 2, horizon),
    "attention": lambda horizon: AttentionBackbone(4, horizon),
    "gru": lambda horizon: RecurrentBackbone(4),
    "state_space": lambda horizon: StateSpaceBackbone(4),
}
FAMILIES = [*(f"actions {name}" for name in BACKBONES), "history transformer", "markov"]


def make_model(family: str, state_dim: int, action_dim: int, horizon: int, **known: Any) -> WorldModel:
    kind, _, backbone = family.partition(" ")
    if kind == "markov":
        return MarkovWorldModel(state_dim, action_dim, hidden_dim=4, **known).double()
    family_of = {"actions": ActionsWorldModel, "history": HistoryWorldModel}[kind]
    return family_of(state_dim, action_dim, BACKBONES[backbone](horizon), **known).double()


@pytest.mark.parametrize("family", FAMILIES)
@few
@given(batch=small, horizon=small, state_dim=small, action_dim=small, spare=st.integers(0, 3), noisy=st.booleans())
def test_imagination_has_its_shapes_whatever_the_sizes(
    family: str, batch: int, horizon: int, state_dim: int, action_dim: int, spare: int, noisy: bool
) -> None:
    model = make_model(family, state_dim, action_dim, horizon + spare)
    policy = (TanhNormalPolicy if noisy else DeterministicPolicy)(state_dim, action_dim, hidden_dim=4).double()
    initial = torch.randn(batch, state_dim, dtype=torch.float64)
    imagined = imagine(model, policy, initial, horizon, method="sequential")
    assert imagined.states.shape == (batch, horizon + 1, state_dim)
    assert imagined.actions.shape == (batch, horizon, action_dim)
    assert imagined.rewards.shape == (batch, horizon)
    assert torch.equal(imagined.states[:, 0], initial)
    imagined.rewards.sum().backward()
    assert all(each.grad is not None and each.grad.isfinite().all() for each in policy.parameters())


@pytest.mark.parametrize("family", FAMILIES)
@few
@given(horizon=st.integers(2, 6), data=st.data())
def test_no_prediction_depends_on_an_action_after_it(family: str, horizon: int, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, horizon - 1), "position")
    model = make_model(family, 2, 1, horizon)
    states, actions = torch.randn(2, horizon, 2).double(), torch.randn(2, horizon, 1).double()
    changed = actions.clone()
    changed[:, position] += 1
    before, after = model(states, actions), model(states, changed)
    for x, y in ((before.state, after.state), (before.reward, after.reward)):
        assert torch.equal(x[:, :position], y[:, :position])
        assert not torch.equal(x[:, position], y[:, position])


@pytest.mark.parametrize("family", FAMILIES)
@few
@given(length=st.integers(1, 6), begin=st.integers(0, 5), horizon=st.integers(1, 6))
def test_no_reward_is_imagined_after_the_end_of_an_episode(family: str, length: int, begin: int, horizon: int) -> None:
    begin = min(begin, length - 1)
    model = make_model(
        family, 2, 1, 6, clock_step=2 / length, reward_fn=lambda state, action, after: 1 + 0 * state[..., 0]
    )
    initial = torch.tensor([[0.3, -1 + 2 * begin / length]], dtype=torch.float64)
    imagined = imagine(model, DeterministicPolicy(2, 1).double(), initial, horizon, method="sequential")
    assert imagined.rewards.sum() == min(horizon, length - begin)


@few
@given(
    num_envs=st.integers(1, 3),
    rounds=st.integers(1, 3),
    episode_length=st.integers(1, 8),
    spare=st.integers(0, 9),
    data=st.data(),
)
def test_slices_are_consecutive_steps_of_one_episode_though_old_ones_are_overwritten(
    num_envs: int, rounds: int, episode_length: int, spare: int, data: st.DataObject
) -> None:
    slice_length = data.draw(st.integers(1, episode_length), "slice_length")
    experience = ExperienceDataModule(
        "bear_populations",
        {"initial_spread": 0.2},
        episode_length=episode_length,
        num_envs=num_envs,
        warmup_episodes=num_envs,
        slice_length=slice_length,
        world_model_batch_size=4,
        capacity=num_envs * episode_length + spare,
    )
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.strategy.connect(WorldModelModule(MarkovWorldModel(4, 2, hidden_dim=4)))
    experience.trainer = trainer
    experience.setup("fit")
    for _ in range(rounds):
        experience.collect()
        batch = experience.sample_trajectories()
        assert batch.shape == (4, slice_length)
        counts = batch.get("mask", torch.ones(4, slice_length, dtype=torch.bool))  # what is left of an old one is short
        assert counts[:, 0].all()
        follows = (batch["next", "observation"][:, :-1] == batch["observation"][:, 1:]).all(-1)
        assert torch.equal(follows & (batch["observation"][..., -1].diff(dim=1) > 0), counts[:, 1:])


class Source:
    """Counts what a loop asks for."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def collect(self) -> None:
        self.calls.append("collect")

    def sample_trajectories(self) -> TensorDict:
        self.calls.append("world_model")
        return TensorDict({"observation": torch.zeros(1, 1, 1)}, [1, 1])

    def sample_initial_states(self) -> TensorDict:
        self.calls.append("policy")
        return TensorDict({"observation": torch.zeros(1, 1)}, [1])


@many
@given(
    updates=st.tuples(st.integers(0, 6), st.integers(0, 6)).filter(any),
    limit=st.none() | st.integers(1, 14),
    data=st.data(),
)
def test_a_pass_resumed_anywhere_asks_for_what_is_left(
    updates: tuple[int, int], limit: int | None, data: st.DataObject
) -> None:
    def phases_of(loop: AlternatingLoop, count: int) -> list[str]:
        return [batch["phase"] for _, batch in zip(range(count), loop, strict=False)]

    whole = Source()
    counts = dict(zip(("world_model", "policy"), updates, strict=True))
    loop = AlternatingLoop(whole, counts, limit)
    length = min(sum(updates), limit or sum(updates))
    phases = phases_of(loop, length)
    assert len(phases) == length
    assert phases == sorted(phases, reverse=True)  # the world model first
    if length >= 2 and all(updates):
        assert set(phases) == {"world_model", "policy"}
    position = data.draw(st.integers(1, length), "position")
    stopped, going_on = Source(), Source()
    before, after = AlternatingLoop(stopped, counts, limit), AlternatingLoop(going_on, counts, limit)
    assert phases_of(before, position) == phases[:position]
    after.load_state_dict(before.state_dict())
    assert phases_of(after, length - position) == phases[position:]
    if position < length:
        assert stopped.calls + going_on.calls == whole.calls


@many
@given(
    period=st.integers(1, 30),
    warmup=st.floats(0, 0.99),
    decay=st.floats(0.01, 1),
    updates=st.integers(1, 70),
    data=st.data(),
)
def test_a_schedule_resumed_anywhere_gives_the_same_rates_within_its_bounds(
    period: int, warmup: float, decay: float, updates: int, data: st.DataObject
) -> None:
    def make() -> tuple[torch.optim.Optimizer, CosineRestarts]:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
        return optimizer, CosineRestarts(optimizer, period, warmup, decay)

    def go_on(optimizer: torch.optim.Optimizer, schedule: CosineRestarts, count: int) -> list[float]:
        rates = []
        for _ in range(count):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        return rates

    rates = go_on(*make(), updates)
    assert all(0 < rate <= 2 * decay ** (update // period) for update, rate in enumerate(rates))
    stop = data.draw(st.integers(0, updates), "stop")
    (first, schedule), (second, resumed) = make(), make()
    before = go_on(first, schedule, stop)
    second.load_state_dict(first.state_dict())
    resumed.load_state_dict(schedule.state_dict())
    assert before + go_on(second, resumed, updates - stop) == rates


@many
@given(start=st.floats(-9, 9), end=st.floats(-9, 9), updates=st.integers(1, 50), at=st.integers(0, 100))
def test_a_linear_schedule_stays_between_its_ends_and_gets_there(
    start: float, end: float, updates: int, at: int
) -> None:
    schedule = LinearSchedule(start, end, updates)
    assert schedule(0) == start
    assert schedule(updates + at) == pytest.approx(end)
    assert min(start, end) - 1e-9 <= schedule(at) <= max(start, end) + 1e-9


@many
@given(
    start=st.integers(1, 50), more=st.integers(0, 50), epochs=st.integers(1, 20), steps=st.none() | st.integers(1, 20)
)
def test_a_curriculum_only_rises_from_its_start_to_the_full_horizon(
    start: int, more: int, epochs: int, steps: int | None
) -> None:
    curriculum = HorizonCurriculum(start, epochs, steps)
    curriculum.full = start + more
    horizons = [curriculum.horizon(epoch) for epoch in range(epochs + 3)]
    assert horizons == sorted(horizons)
    assert horizons[0] == start
    assert horizons[epochs:] == [start + more] * 3
    assert steps is None or len(set(horizons)) <= steps + 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoints")


@many
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_found_or_changes_nothing(folder: Path, where: float, bit: int) -> None:
    path = folder / "last.ckpt"
    path.unlink(missing_ok=True)
    saved = {"weights": torch.arange(200.0), "epoch": 3}
    SafeCheckpointIO().save_checkpoint(saved, path)
    content = bytearray(path.read_bytes())
    content[int(where * len(content))] ^= 1 << bit
    path.write_bytes(content)
    try:
        loaded = SafeCheckpointIO().load_checkpoint(path)
    except DamagedFileError as error:
        assert str(path) in str(error)  # noqa: PT017
    else:
        assert loaded["epoch"] == 3
        assert torch.equal(loaded["weights"], saved["weights"])
