"""What an error says, in a line."""


def first_line(problem: BaseException) -> str:
    """The first line of its text; its kind, if it says nothing."""
    return (str(problem).strip().splitlines() or [type(problem).__name__])[0]
