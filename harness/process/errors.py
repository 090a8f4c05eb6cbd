"""What an error says, in a line."""

import torch


def first_line(problem: BaseException) -> str:
    """The first line of its text; its kind, if it says nothing."""
    return (str(problem).strip().splitlines() or [type(problem).__name__])[0]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error`, or what caused it, says that memory of a device or of the host ran out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    marks = ("out of memory", "not enough memory", "can't allocate memory", "ALLOC_FAILED")
    if isinstance(error, RuntimeError) and any(mark in str(error) for mark in marks):
        return True
    return error.__cause__ is not None and is_out_of_memory(error.__cause__)
