from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from lit_awm.actor import Actor
from lit_awm.decoding import CompiledDecoder, decode
from lit_awm.imagination import imagine
from lit_awm.models import (
    ActionsWorldModel,
    AttentionBackbone,
    Backbone,
    DeterministicPolicy,
    MarkovWorldModel,
    Policy,
    RecurrentBackbone,
    StateSpaceBackbone,
    TanhNormalPolicy,
    WorldModel,
)
from lit_awm.modules import PolicyModule

HORIZON = 10


def test_decoding_takes_the_steps_of_the_model(
    world_model: ActionsWorldModel, policy: DeterministicPolicy, initial_state: Tensor
) -> None:
    sequential = imagine(world_model, policy, initial_state, HORIZON, method="sequential")
    states = decode(world_model, Actor(policy), initial_state, HORIZON)
    assert torch.equal(states, sequential.states[:, :-1])
    assert not states.requires_grad


@pytest.mark.parametrize("is_code_made", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_one_compilation_decodes_any_batch_and_horizon(
    world_model: ActionsWorldModel,
    policy: DeterministicPolicy,
    initial_state: Tensor,
    request: pytest.FixtureRequest,
    is_code_made: bool,
) -> None:
    if not is_code_made:
        request.getfixturevalue("without_code")
    torch._dynamo.reset()
    counters.clear()
    decoder = CompiledDecoder()
    for batch, horizon in ((4, 10), (3, 12), (2, 2), (4, 1)):
        first = initial_state[:batch]
        found = decoder(world_model, Actor(policy), first, horizon)
        expected = decode(world_model, Actor(policy), first, horizon)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    assert counters["stats"]["unique_graphs"] == 1


@pytest.mark.parametrize(
    "backbone",
    [RecurrentBackbone(8), StateSpaceBackbone(8), AttentionBackbone(8), None],
    ids=lambda b: type(b).__name__,
)
@pytest.mark.usefixtures("without_code")
def test_every_backbone_can_be_compiled(backbone: Backbone | None, initial_state: Tensor) -> None:
    model: WorldModel = MarkovWorldModel(3, 2) if backbone is None else ActionsWorldModel(3, 2, backbone)
    policy = TanhNormalPolicy(3, 2).double()
    noise, action_noise = torch.randn(2, 4, HORIZON, 2, dtype=torch.float64)
    act = Actor(policy, noise, action_noise)
    found = CompiledDecoder()(model.double(), act, initial_state, HORIZON)
    torch.testing.assert_close(found, decode(model, act, initial_state, HORIZON), rtol=1e-12, atol=0)


@pytest.mark.usefixtures("without_code")
@pytest.mark.parametrize("kind", [DeterministicPolicy, TanhNormalPolicy])
def test_the_gradient_is_the_same_and_follows_the_weights(
    world_model: ActionsWorldModel, initial_state: Tensor, kind: type[Policy]
) -> None:
    policy, decoder = kind(3, 2).double(), CompiledDecoder()
    for _ in range(2):
        gradients = []
        for each in (decoder, None):
            torch.manual_seed(3)
            imagined = imagine(world_model, policy, initial_state, HORIZON, method="replay", decoder=each)
            gradients.append(torch.autograd.grad(imagined.rewards.sum(), list(policy.parameters())))
        for ours, theirs in zip(*gradients, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
        with torch.no_grad():
            for parameter in policy.parameters():
                parameter += 0.3 * torch.randn_like(parameter)


@pytest.mark.usefixtures("without_code")
@pytest.mark.parametrize("method", ["replay", "warm"])
def test_a_policy_module_decodes_by_a_compiled_step_and_can_be_copied(
    world_model: ActionsWorldModel, policy: DeterministicPolicy, initial_state: Tensor, method: Any
) -> None:
    counters.clear()
    module = PolicyModule(policy, world_model, HORIZON, method, compile_decoding=True)
    ordinary = PolicyModule(policy, world_model, HORIZON, method)
    batch: Any = {"observation": initial_state}
    loss = module.loss(batch)
    assert counters["stats"]["unique_graphs"] == 1
    torch.testing.assert_close(loss, ordinary.loss(batch), rtol=1e-12, atol=0)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        twin.forget()
        torch.testing.assert_close(twin.loss(batch), loss, rtol=1e-12, atol=0)


def test_compiling_what_decodes_nothing_is_refused(policy: DeterministicPolicy) -> None:
    with pytest.raises(ValueError, match="compile_decoding must be false for method 'sequential', got true"):
        PolicyModule(policy, MarkovWorldModel(3, 2), HORIZON, "auto", compile_decoding=True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", [DeterministicPolicy, TanhNormalPolicy])
@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_a_captured_decoding_follows_states_noise_and_weights(
    world_model: ActionsWorldModel, initial_state: Tensor, kind: type[Policy], precision: torch.dtype | None
) -> None:
    model, policy, decoder = world_model.float().cuda(), kind(3, 2).cuda(), CompiledDecoder()
    graphs = set()
    with torch.autocast("cuda", dtype=precision, enabled=precision is not None):
        for _ in range(3):
            noise, action_noise = 0.3 * torch.randn(2, 4, HORIZON, 2, device="cuda")
            act, first = Actor(policy, noise, action_noise), initial_state.float().cuda() + torch.rand(())
            found, expected = decoder(model, act, first, HORIZON), decode(model, act, first, HORIZON)
            scale = model.state_scaler.scale  # in whose units the states are
            assert ((found - expected) / scale).abs().max() < (1e-4 if precision is None else 0.05)
            assert decoder._captured is not None
            graphs.add(id(decoder._captured.graph))
            with torch.no_grad():
                for parameter in (*model.parameters(), *policy.parameters()):
                    parameter += 0.1 * torch.randn_like(parameter)
    assert len(graphs) == 1
