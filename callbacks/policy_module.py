"""Find what optimises a policy."""

from __future__ import annotations

from lightning.pytorch import LightningModule

from lit_awm.modules import AlternatingModule, PolicyModule


def policy_module(pl_module: LightningModule, callback: str) -> PolicyModule:
    """Return the module that optimises a policy: the one that is fitted, or a part of it.

    Raises:
        ValueError: If there is none; the message names the callback that needs it.
    """
    module = pl_module.policy if isinstance(pl_module, AlternatingModule) else pl_module
    if not isinstance(module, PolicyModule):
        raise ValueError(f"{callback} needs a module that optimises a policy, got {type(module).__name__}.")
    return module
