"""The command line: quick to start, heavy imports only for the commands that need them."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

from lit_awm.checks import did_you_mean

COMMON = "common"
BASES = dict.fromkeys(("cartpole_swingup", "inverted_pendulum", "reacher"), "gym")  # what a recipe builds on
COMMANDS = {  # and the module of lit_awm.commands that runs them
    "fit": "training",
    "validate": "training",
    "evaluate": "evaluate",
    "doctor": "doctor",
    "export": "export",
    "play": "play",
    "collect": "collect",
    "report": "report",
    "study": "study",
    "envs": "envs",
    "oracle": "oracle",
    "gradients": "gradients",
    "landscape": "landscape",
    "reproduce": "reproduce",
    "benchmark": "benchmark",
}
USAGE = """usage: lit-awm COMMAND [options]

Fit action-conditioned world models and optimise policies through them.

commands:
  fit        fit a world model and optimise a policy in it, by a recipe
  validate   score a checkpoint (--ckpt_path) in the real environment, by a recipe
  evaluate   score a checkpoint by the recipe that it was made with
  play       watch a policy: write an animation of what it does
  doctor     tell versions, devices and, for a recipe, whether it can run here, its memory and time
  collect    record what a policy does, for other programs or to learn from later
  report     make one page of learning curves, scores and statistics about runs
  study      run methods on systems with several seeds
  export     write policy and world model of a checkpoint for other programs
  envs       list the environments, with sizes and optimum
  oracle     find the best controls of an environment, knowing its dynamics
  gradients  measure policy gradients through every family of world models
  landscape  draw the return around a policy, in every family of world models
  reproduce  run the studies behind the claims
  benchmark  measure time and memory of policy gradients

  lit-awm fit --config cancer_treatment               run a recipe
  lit-awm fit --config cancer_treatment --seed_everything 1 --trainer.max_epochs 5
  lit-awm fit --config cancer_treatment --config my.yaml --print_config
  lit-awm evaluate runs/cancer_treatment/version_0/checkpoints/last.ckpt --json
  lit-awm oracle hiv_treatment --episode-length 200   the optimum that a policy is to reach
  lit-awm gradients --config cancer_treatment --horizons 10,20,50,100
  lit-awm COMMAND --help                              all options of a command

recipes (a name after --config that is no file):
  {recipes}
"""


def recipes() -> dict[str, Path]:
    """Return the shipped recipes by name."""
    import lit_awm.configs

    folder = Path(lit_awm.configs.__file__).parent
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def resolve_recipes(arguments: list[str]) -> list[str]:
    """Replace the names of shipped recipes after ``--config`` by their files, after those that they build on.

    That is the common one for all, and others for some; none comes twice as a base.

    Raises:
        ValueError: If what follows ``--config`` is neither a file nor a recipe.
    """
    shipped, resolved = recipes(), list[str]()
    words = iter(arguments)
    for word in words:
        flag, is_joined, name = word.partition("=")
        if flag not in ("--config", "-c"):
            resolved.append(word)
            continue
        name = name if is_joined else next(words, "")
        if not Path(name).is_file():
            if name not in shipped:
                hint = did_you_mean(name, shipped)
                raise ValueError(f"--config must be a file or the name of a recipe, got {name!r}.{hint}")
            for base in (COMMON, BASES.get(name, COMMON)):
                if (file := f"--config={shipped[base]}") not in resolved:
                    resolved.append(file)
            name = str(shipped[name]) if name != COMMON else ""
        if name:
            resolved.append(f"--config={name}")
    return resolved


def say(text: str) -> None:
    """Print a text; whoever reads it through a pipe may stop before its end."""
    try:
        print(text, flush=True)  # noqa: T201
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    command = arguments[0] if arguments else "--help"
    if command in ("-h", "--help"):
        say(USAGE.format(recipes=", ".join(recipes())))
        return 0
    if command == "--version":
        from lit_awm import __version__

        print(f"lit-awm {__version__}")  # noqa: T201
        return 0
    if command not in COMMANDS:
        hint = did_you_mean(command, COMMANDS)
        print(f"lit-awm: unknown command {command!r}.{hint} See `lit-awm --help`.", file=sys.stderr)  # noqa: T201
        return 2
    try:
        arguments = resolve_recipes(arguments)
    except ValueError as error:
        print(f"lit-awm: {error} See `lit-awm --help`.", file=sys.stderr)  # noqa: T201
        return 2
    if command == "benchmark":  # whose use of PyTorch's profiler would be announced in many lines
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    if (here := os.getcwd()) not in sys.path:
        sys.path.append(here)  # where classes of the user's own may be
    module = importlib.import_module(f"lit_awm.commands.{COMMANDS[command]}")
    return module.main(arguments if COMMANDS[command] == "training" else arguments[1:])


if __name__ == "__main__":
    sys.exit(main())
