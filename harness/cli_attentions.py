"""The commands for attentions of the user's own: new."""

from __future__ import annotations

import keyword
import re
import shlex
from pathlib import Path
from typing import Annotated

from harness.cli_common import Positional, app, out_console, shown

TEMPLATE = Path(__file__).parent / "templates" / "attention.py"


@app.command
def new(
    name: Annotated[str, Positional],
    *,
    out: Annotated[Path, shown("FOLDER")] = Path(),
) -> int:
    """Write NAME.py, an attention that works, to be made your own: a short file with its options and its definition.

    Args:
        name: what it will be called in every command, as in my_attention.
        out: folder of the file; left out, the current one.
    """
    import attentions

    if keyword.iskeyword(name) or not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII):
        raise ValueError(f"{name!r} cannot be the name of an attention: it takes letters, digits and _, a letter first")
    if name in attentions.names():
        raise ValueError(f"there is an attention {name!r} already (see attention-bench list attentions)")
    path = out / f"{name}.py"
    title = name.title().replace("_", "").removesuffix("Attention") or "My"
    text = TEMPLATE.read_text(encoding="utf-8")
    text = text.replace("MyAttention", f"{title}Attention").replace("my_attention", name)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as problem:
        raise ValueError(f"{problem.filename} exists, and is not overwritten") from problem
    except OSError as problem:
        raise ValueError(f"cannot write {path}: {problem.strerror}") from problem
    quoted = shlex.quote(str(path))
    run = f"attention-bench run --import {quoted} --backbone deit_micro swin_micro --attention softmax {name}"
    for line in (
        f"wrote {path}: linear attention, to be made your own; then",
        f"attention-bench check {quoted}",
        f"{run} --task costs",
        f"{run} --task speed",
    ):
        out_console.print(line, markup=False, soft_wrap=True)
    return 0
