"""The code that an attention is made of, as a hash: a certificate is of this code, and says nothing of other code."""

from __future__ import annotations

import ast
import hashlib
import inspect
import sys
from functools import cache
from pathlib import Path

from attentions import _contract, _registry
from attentions._contract import Attention


def source_digest(name: str) -> str:
    """A hash of the file that defines the attention `name`, and of what that imports of this folder.

    The contract and the registry make no numbers, and are left out.
    """
    return _digest(_registry.lookup(name))  # type: ignore[arg-type]


# Once, and early: a user may go on editing the file of what has been loaded.
@cache
def _digest(attention: type[Attention]) -> str:
    todo, texts = [inspect.getsourcefile(attention)], {}
    while todo:
        path = todo.pop()
        if path is None or path in texts:
            continue
        texts[path] = Path(path).read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(texts[path])):
            module = node.module if isinstance(node, ast.ImportFrom) else None
            if module and module.startswith("attentions._") and module not in (_contract.__name__, _registry.__name__):
                todo.append(inspect.getsourcefile(sys.modules[module]))
    ordered = "\0".join(texts[path] for path in sorted(texts, key=lambda path: Path(path).name))
    return hashlib.sha256(ordered.encode()).hexdigest()[:16]
