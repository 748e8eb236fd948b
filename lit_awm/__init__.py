"""Action-conditioned world models and policy optimisation through them, on PyTorch Lightning."""

from pathlib import Path as _Path
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

if _TYPE_CHECKING:
    from lit_awm.bundles import load_policy, load_world_model

__all__ = ["__version__", "load_policy", "load_world_model"]

__version__ = "0.1.0"

# In a checkout `callbacks/` and `configs/` lie beside the package; in an installed package, inside it.
_root = _Path(__file__).resolve().parent.parent
if (_root / "pyproject.toml").is_file() and (_root / "callbacks").is_dir():
    __path__.append(str(_root))


def __getattr__(name: str) -> _Any:
    """Import on first use what needs PyTorch."""
    if name in ("load_policy", "load_world_model"):
        import lit_awm.bundles

        return getattr(lit_awm.bundles, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
