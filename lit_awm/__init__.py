"""Action-conditioned world models and policy optimisation through them, on PyTorch Lightning."""

from pathlib import Path as _Path

__version__ = "0.1.0"

# In a checkout `callbacks/` and `configs/` lie beside the package; in an installed package, inside it.
_root = _Path(__file__).resolve().parent.parent
if (_root / "pyproject.toml").is_file() and (_root / "callbacks").is_dir():
    __path__.append(str(_root))
