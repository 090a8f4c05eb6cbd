"""Numbers, durations and lists in words, the same in every table, status line and error."""

import re
from collections.abc import Sequence


def count(number: int, noun: str) -> str:
    """A number and what is counted: "1 job", "2 processes", "1,281,167 images"."""
    plural = "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{plural * (number != 1)}"


def and_more(items: Sequence[str], shown: int = 3, separator: str = ", ") -> str:
    """The first few of a list, and how many are left: "a, b, c and 4 more"."""
    rest = f" and {len(items) - shown:,} more" if len(items) > shown else ""
    return separator.join(items[:shown]) + rest


def printable(text: str) -> str:
    """A text in which each byte of a file name that is not UTF-8 is written out, as in `fa\\xdfade.jpg`.

    Python has a surrogate in its place, which no file, terminal or column of a table takes.
    """
    written = re.sub("[\udc80-\udcff]", lambda found: f"\\x{ord(found[0]) - 0xDC00:02x}", text)
    return written.encode("utf-8", "backslashreplace").decode("utf-8")


def one_line(text: str) -> str:
    """A text on one line, in which what no reader sees is written out, as the sequences that steer a terminal."""
    if text.isprintable():
        return text
    return "".join(map(_visible, printable(" ".join(text.splitlines()))))


def _visible(character: str) -> str:
    if character.isprintable():
        return character
    if character.isspace() and ord(character) not in range(0x1C, 0x20):
        return " "
    return character.encode("unicode_escape").decode("ascii")


def duration(seconds: float) -> str:
    """As "40 s", "12 min", "1 h 20 min" or "3 d 4 h"."""
    minutes = round(seconds / 60)
    if round(seconds) < 60:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"


def natural(text: str) -> list[str | int]:
    """A sort key by which numbers inside texts compare as numbers: focusing factor 4 comes before 32."""
    return [int(part) if position % 2 else part for position, part in enumerate(re.split("([0-9]+)", text))]
