"""What an error says, in one line, and whether it is about memory."""

import traceback

import torch


def first_line(problem: BaseException) -> str:
    """Return the first line of an error's text; if it has none, an assertion's code, or else its class name."""
    if text := str(problem).strip():
        return text.splitlines()[0]
    raised = traceback.extract_tb(problem.__traceback__)[-1:] if isinstance(problem, AssertionError) else []
    return (raised[0].line if raised else None) or type(problem).__name__


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether `error`, or its cause, says that the memory of a device or of the host ran out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    marks = ("out of memory", "not enough memory", "can't allocate memory", "ALLOC_FAILED")
    if isinstance(error, RuntimeError) and any(mark in str(error) for mark in marks):
        return True
    return error.__cause__ is not None and is_out_of_memory(error.__cause__)
