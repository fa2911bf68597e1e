"""Melanoma detection at phone size by knowledge distillation: ``from dermdistill import Detector``."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dermdistill.api import Answer, Detector

__version__ = "0.1.0"
__all__ = ["Answer", "Detector", "__version__"]


def __getattr__(name: str) -> Any:
    """``Detector`` and ``Answer`` are imported when asked for: the pipeline imports this package without them."""
    if name in ("Answer", "Detector"):
        from dermdistill import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
