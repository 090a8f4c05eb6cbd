"""A certificate: which laws an attention was tested by and how it stood them, as one JSON file."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from results.records import write_text

SCHEMA = 1
VERDICTS = ("pass", "fail", "exempt")


@dataclass(frozen=True)
class Verdict:
    """One law: its name, "pass", "fail" or "exempt", and what was tried, the smallest failing case or the reason."""

    law: str
    verdict: str
    detail: str
    seconds: float


@dataclass(frozen=True)
class Certificate:
    """All laws of one attention.

    `attention` is its text with every option; `source` the hash of the code that was tested, which the records of
    measurements name as well; `form` "full" or "quick"; `environment` where and with which versions.
    """

    attention: str
    source: str
    form: str
    laws: tuple[Verdict, ...]
    environment: dict[str, Any]

    @property
    def passed(self) -> bool:
        return not self.failed

    @property
    def failed(self) -> tuple[Verdict, ...]:
        return tuple(law for law in self.laws if law.verdict == "fail")

    @property
    def summary(self) -> str:
        """As "17 of 19 laws, 2 exempt" or "fails 1 of 19 laws: macs"."""
        counts = {verdict: sum(law.verdict == verdict for law in self.laws) for verdict in VERDICTS}
        if self.failed:
            return f"fails {counts['fail']} of {len(self.laws)} laws: {', '.join(law.law for law in self.failed)}"
        exempt = f", {counts['exempt']} exempt" if counts["exempt"] else ""
        return f"{counts['pass']} of {len(self.laws)} laws{exempt}"


def file_name(attention: str) -> str:
    """As "focused-1f3a5c7e.json": an attention with other options is another file."""
    return f"{attention.partition('(')[0]}-{hashlib.sha256(attention.encode()).hexdigest()[:8]}.json"


def write_certificate(folder: Path, certificate: Certificate) -> Path:
    """Write it to the folder and return its path. Raises ValueError if the folder cannot be written."""
    text = json.dumps({"schema": SCHEMA, **asdict(certificate)}, indent=2, allow_nan=False)
    return write_text(folder / file_name(certificate.attention), text + "\n")


def read_certificate(path: Path) -> Certificate:
    """The certificate in `path`. Raises ValueError with the path and what is wrong if it is missing or damaged."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not a whole JSON file: {error}") from error
    expected = {"schema", *(f.name for f in fields(Certificate))}
    if not isinstance(values, dict) or values.get("schema") != SCHEMA or set(values) != expected:
        raise ValueError(f"{path}: not a certificate of schema {SCHEMA}")
    try:
        laws = tuple(Verdict(**law) for law in values["laws"])
    except TypeError as error:
        raise ValueError(f"{path}: a law is not whole: {error}") from error
    if unknown := {law.verdict for law in laws} - set(VERDICTS):
        raise ValueError(f"{path}: verdict {sorted(map(str, unknown))}, allowed are {', '.join(VERDICTS)}")
    return Certificate(values["attention"], values["source"], values["form"], laws, values["environment"])


def find_certificate(attention: str, source: str, folders: Iterable[Path]) -> Certificate | None:
    """The first whole certificate of this attention and this code in the folders, or None."""
    for folder in folders:
        path = folder / file_name(attention)
        if path.is_file():
            try:
                found = read_certificate(path)
            except ValueError:
                continue
            if (found.attention, found.source) == (attention, source):
                return found
    return None
