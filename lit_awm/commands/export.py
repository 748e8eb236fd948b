"""``lit-awm export``: policy and world model of a checkpoint for other programs."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from lit_awm.bundles import check_same, describe, make_bundle
from lit_awm.checkpoints.files import write_atomically
from lit_awm.commands.checkpoint import rebuild
from lit_awm.commands.output import folder_to_write
from lit_awm.commands.subjects import parse_list
from lit_awm.models import Policy, WorldModel
from lit_awm.modules import AgentModule, AlternatingModule

FORMATS = ("safetensors", "program", "onnx")
SUFFIX = {"program": "pt2", "onnx": "onnx"}
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-5  # of the largest number
Inputs = tuple[Tensor, ...]


class Predictor(nn.Module):
    """What a world model predicts, as a plain pair."""

    def __init__(self, world_model: WorldModel) -> None:
        super().__init__()
        self.world_model = world_model

    def forward(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Map states ``(B, H, S)`` and actions ``(B, H, A)`` to the states and rewards that follow."""
        state, reward = self.world_model(states, actions)
        return state, reward


class Mode(nn.Module):
    """The action that a policy takes without noise."""

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, state: Tensor) -> Tensor:
        """Map states ``(B, S)`` to actions ``(B, A)``."""
        return self.policy.sample(state)


def main(arguments: list[str]) -> int:
    """Write policy and world model of a checkpoint: weights as safetensors, torch.export programs, ONNX.

    What is written has been compared with the models on random input before.
    """
    parser = argparse.ArgumentParser(prog="lit-awm export", description=main.__doc__, allow_abbrev=False)
    parser.add_argument("checkpoint", type=Path, help="checkpoint of `lit-awm fit`")
    parser.add_argument(
        "--out", type=folder_to_write, help="folder to write to (default: `export` beside the checkpoint)"
    )
    parser.add_argument("--formats", default=",".join(FORMATS), help=f"which of {', '.join(FORMATS)} (default: all)")
    options = parser.parse_args(arguments)
    formats = parse_list(parser, options.formats, "formats", list(FORMATS))
    missing = [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if "onnx" in formats and missing:
        parser.error(
            f"format onnx needs {', '.join(missing)}: pip install 'lit-awm[onnx]', or leave it out of --formats."
        )
    try:
        whole, _, _, recipe = rebuild(options.checkpoint)
    except ValueError as error:
        parser.error(str(error))
    module = whole.policy if isinstance(whole, AlternatingModule) else whole
    if isinstance(module, AgentModule):
        parser.error(f"checkpoint must hold a policy with its world model, got {type(module).__name__}.")
    policy, world_model = module.policy.cpu().eval(), module.world_model.cpu().eval()
    module.requires_grad_(False)
    folder = options.out or options.checkpoint.parent / "export"
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    problems = []
    if "safetensors" in formats:
        facts = {"clock_step": world_model.clock_step, "known_reward": world_model.knows_reward}
        sizes = {"state_dim": policy.state_dim, "action_dim": policy.action_dim}
        try:
            contents = make_bundle(describe(recipe, **sizes, **facts), policy, world_model)
        except ValueError as error:
            contents, problems = {}, [f"safetensors: {error}"]
        _write(folder, contents)
    for name in (name for name in formats if name in MAKERS):
        horizon = module.imagination_horizon
        for part, model, inputs in _parts(policy, world_model, horizon):
            try:
                _write(folder, {f"{part}.{SUFFIX[name]}": MAKERS[name](model, inputs)})
            except Exception as error:  # whatever the exporters of other packages raise
                problems.append(f"{part} as {name}: {str(error).strip().splitlines()[0]}")
    for problem in problems:
        print(f"not written: {problem}")  # noqa: T201
    return int(bool(problems))


def _write(folder: Path, contents: dict[str, bytes]) -> None:
    for name, content in contents.items():
        write_atomically(folder / name, content)
        print(folder / name)  # noqa: T201


def _parts(policy: Policy, world_model: WorldModel, horizon: int) -> Iterator[tuple[str, nn.Module, Inputs]]:
    """Yield what is to be exported, with an example of its input."""
    yield "policy", Mode(policy), (torch.randn(2, policy.state_dim),)
    if next(world_model.parameters(), None) is not None:
        states, actions = torch.randn(2, horizon, policy.state_dim), torch.rand(2, horizon, policy.action_dim)
        yield "world_model", Predictor(world_model), (states, actions)


def _make_program(model: nn.Module, inputs: Inputs) -> bytes:
    """Return a torch.export program, for any batch and, if possible, any horizon."""

    def make(free: int) -> tuple[bytes, Callable[..., Any]]:
        program = torch.export.export(model, inputs, dynamic_shapes=_free(inputs, free))
        content = io.BytesIO()
        torch.export.save(program, content)
        content.seek(0)
        return content.getvalue(), torch.export.load(content).module()

    return _checked(make, model, inputs, "the program")


def _make_onnx(model: nn.Module, inputs: Inputs) -> bytes:
    """Return an ONNX model, for any batch and, if possible, any horizon."""
    import onnxruntime

    def make(free: int) -> tuple[bytes, Callable[..., Any]]:
        shapes = _free(inputs, free)
        program = torch.onnx.export(model, inputs, dynamic_shapes=shapes, dynamo=True, verbose=False)
        assert program is not None
        content = io.BytesIO()
        program.save(content)  # type: ignore[arg-type]  # it takes files, too
        session = onnxruntime.InferenceSession(content.getvalue())
        names = [each.name for each in session.get_inputs()]

        def run(*given: Tensor) -> Inputs:
            found = session.run(None, {name: value.numpy() for name, value in zip(names, given, strict=True)})
            return tuple(torch.from_numpy(each) for each in found)

        return content.getvalue(), run

    return _checked(make, model, inputs, "the ONNX model")


MAKERS: dict[str, Callable[[nn.Module, Inputs], bytes]] = {"program": _make_program, "onnx": _make_onnx}


def _free(inputs: Inputs, count: int) -> tuple[dict[int, Any], ...]:
    return tuple(dict.fromkeys(range(min(count, value.ndim - 1)), Dim.AUTO) for value in inputs)


def _checked(
    make: Callable[[int], tuple[bytes, Callable[..., Any]]], model: nn.Module, inputs: Inputs, what: str
) -> bytes:
    """Return what takes any batch and any horizon, or else any batch; compared with the model on random input."""
    for free in range(inputs[0].ndim - 1, 0, -1):
        others = tuple(torch.randn(5, *_shorter(value, free), value.shape[-1]) for value in inputs)
        try:
            with warnings.catch_warnings(), _silent():
                warnings.simplefilter("ignore")
                content, twin = make(free)
                for given in (inputs, others):
                    check_same(model, twin, *given, tolerance=TOLERANCE, what=what)
        except Exception:  # of any kind: the size is fixed in what the exporter has made
            if free == 1:
                raise
        else:
            return content
    raise AssertionError


def _shorter(value: Tensor, free: int) -> list[int]:
    """Return the sizes between batch and features; others than those of the example where they are free."""
    return [max(1, size - 1) if index + 1 < free else size for index, size in enumerate(value.shape[1:-1])]


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep what exporters tell of their steps to themselves."""
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)
