"""In: an import or keyword of the genuine launch. Out: a clear refusal where the stand-in lacks it."""

from __future__ import annotations

import difflib
import importlib.machinery
import inspect
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn

PIP_ROS = Path(__file__).resolve().parent.parent


def refuse_beside_genuine(package: str) -> None:
    """Raise ImportError where the genuine `package` is importable too: one would shadow the other."""
    elsewhere = [entry for entry in sys.path if Path(entry or ".").resolve() != PIP_ROS]
    spec = importlib.machinery.PathFinder.find_spec(package, elsewhere)
    if spec is not None and spec.origin is not None:
        raise ImportError(
            f"got two packages named {package!r}: the genuine one at {spec.origin} and the stand-in at "
            f"{PIP_ROS / package}; expected one. Take {PIP_ROS} off PYTHONPATH and PATH."
        )


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ' (did you mean …?)' for the known name that looks most like `name`, or an empty text."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def missing_names(module: str, supported: Iterable[str]) -> Callable[[str], NoReturn]:
    """Return a module `__getattr__` that names what is missing and what there is."""
    names = sorted(supported)

    def refuse(name: str) -> NoReturn:
        """Raise AttributeError for `name`, with the nearest supported name and the list of all of them."""
        if name.startswith("__"):
            raise AttributeError(name)
        raise AttributeError(
            f"launch stand-in: {module}.{name} is not supported{nearest(name, names)}; "
            f"supported: {', '.join(names)}. The genuine launch has it: source a ROS 2 distribution."
        )

    return refuse


def strict_keywords(cls: type[Any]) -> type[Any]:
    """Class decorator: an unknown keyword is refused by name, with the keywords that are supported."""
    init = cls.__init__
    signature = inspect.signature(init)
    known = [
        name
        for name, parameter in signature.parameters.items()
        if name != "self" and parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]

    def checked(self: Any, *args: Any, **kwargs: Any) -> None:
        """The class's `__init__`, after a TypeError for any keyword that it does not take."""
        for name in kwargs:
            if name not in known:
                raise TypeError(
                    f"launch stand-in: {cls.__name__}({name}=…) is not supported{nearest(name, known)}; "
                    f"supported: {', '.join(known)}"
                )
        init(self, *args, **kwargs)

    checked.__signature__ = signature  # type: ignore[attr-defined]
    checked.__doc__ = init.__doc__
    cls.__init__ = checked
    return cls
