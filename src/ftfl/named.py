"""Somebody's own function by its name, ``package.module:function``: an environment or a screen."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from ftfl.errors import FtflError, in_a_line, unknown


def load_named(name: str, kind: str, form: str = "package.module:function") -> Any:
    """What ``name`` names, imported as ``python -m`` would: the current directory counts.

    ``kind`` is said in messages ("screen"), and so is ``form``.

    Raises:
        FtflError: a name of another form, a module that cannot be imported or that has no such
            attribute.
    """
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise FtflError(f"{kind} {name!r} is not of the form {form}.")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)  # it stays, for imports made later
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise FtflError(
            f"{kind} {name}: importing {module_name} failed with {in_a_line(error)}; the module"
            " must be installed or lie below the current directory."
        ) from error
    if not hasattr(module, attribute):
        raise unknown(f"{kind} in {module_name}", attribute, _public(module))
    return getattr(module, attribute)


def _public(module: Any) -> list[str]:
    names = [n for n in vars(module) if not n.startswith("_") and callable(getattr(module, n))]
    return names or ["(the module defines no function)"]
