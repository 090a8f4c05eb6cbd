"""A hash of the code an attention is made of: a certificate holds for this code, and for no other."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import sys
import uuid
from contextlib import suppress
from functools import cache
from pathlib import Path

# The contract and the registry do not affect results.
NO_NUMBERS = ("attentions", "attentions._contract", "attentions._registry")


@cache
def class_digest(attention: type) -> str:
    """Return a hash of the file that defines a class, and of all it imports from its own package and this folder.

    It is computed once, as a user may keep editing a file after it has been loaded. A class typed into an interpreter
    has no file: its hash is random, and matches nothing else.
    """
    try:
        todo = [(attention.__module__, inspect.getsourcefile(attention))]
    except (OSError, TypeError):
        todo = [(attention.__module__, None)]
    # As bytes, so that the encoding does not matter.
    texts: dict[str, bytes] = {}
    while todo:
        module, path = todo.pop()
        if path is None or not Path(path).is_file() or path in texts:
            continue
        texts[path] = Path(path).read_bytes()
        todo += [(name, _file_of(name)) for name in _imported(texts[path], module)]
    if not texts:
        return uuid.uuid4().hex[:16]
    ordered = b"\0".join(texts[path] for path in sorted(texts, key=lambda path: Path(path).name))
    return hashlib.sha256(ordered).hexdigest()[:16]


# Cached, as several attentions share files.
@cache
def _imported(text: bytes, module: str) -> tuple[str, ...]:
    """Return the names a module imports that may be modules of its own package or of this folder."""
    tops, found = {module.partition(".")[0], "attentions"}, []
    for node in ast.walk(ast.parse(text)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            if node.level:
                base = importlib.util.resolve_name(base, sys.modules[module].__package__)
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        found += [name for name in names if name.partition(".")[0] in tops and name not in NO_NUMBERS]
    return tuple(found)


@cache
def _file_of(module: str) -> str | None:
    """Return the file of a module; None if the name is not one, such as a function imported from a module."""
    with suppress(ImportError, ValueError):
        spec = importlib.util.find_spec(module)
        return None if spec is None else spec.origin
    return None
