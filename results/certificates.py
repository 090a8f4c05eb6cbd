"""A certificate: the laws by which an attention was tested, and their verdicts, as one JSON file."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from results.records import read_json, write_text

SCHEMA = 1
SHIPPED = Path(__file__).parent / "certificates"
"""Certificates of the project's own attentions, each with its default options."""
EARLIER = SHIPPED / "earlier"
"""Certificates that shipped with earlier code, whose hash records made with it still name."""

VERDICTS = ("pass", "fail", "exempt")
DEVICES = ("cpu", "cuda")


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

    `attention` is its text with every option; `source` the hash of the tested code, which records of measurements name
    as well; `form` is "full" or "quick"; `environment` says where and with which versions it was tested.
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
    def device(self) -> str:
        """The device on which it was tested: "cpu" or "cuda"."""
        return self.environment.get("device", "cpu")

    @property
    def short(self) -> str:
        """The verdicts in brief: "17/19 (2 exempt)", "18/18 quick", "18/18 on cuda" or "fails macs"."""
        where = "" if self.device == "cpu" else f" on {self.device}"
        if self.failed:
            return f"fails {', '.join(law.law for law in self.failed)}{where}"
        exempt = sum(law.verdict == "exempt" for law in self.laws)
        held = f"{len(self.laws) - exempt}/{len(self.laws)}" + (f" ({exempt} exempt)" if exempt else "")
        return held + ("" if self.form == "full" else f" {self.form}") + where


def file_name(attention: str, form: str = "full", device: str = "cpu") -> str:
    """Return "focused-1f3a5c7e.json" or "focused-1f3a5c7e-cuda-quick.json": other options have another file."""
    name = f"{attention.partition('(')[0]}-{hashlib.sha256(attention.encode()).hexdigest()[:8]}"
    name += "" if device == "cpu" else f"-{device}"
    return f"{name}.json" if form == "full" else f"{name}-{form}.json"


def write_certificate(folder: Path, certificate: Certificate) -> Path:
    """Write the certificate to the folder and return its path; a full one replaces a quick one.

    Raises ValueError if the folder cannot be written.
    """
    text = json.dumps({"schema": SCHEMA, **asdict(certificate)}, indent=2, allow_nan=False)
    attention, device = certificate.attention, certificate.device
    path = write_text(folder / file_name(attention, certificate.form, device), text + "\n")
    if certificate.form == "full":
        (folder / file_name(attention, "quick", device)).unlink(missing_ok=True)
    return path


def read_certificate(path: Path) -> Certificate:
    """Return the certificate in `path`.

    Raises ValueError with the path and what is wrong if it is missing or damaged.
    """
    values = read_json(path)
    expected = {"schema", *(f.name for f in fields(Certificate))}
    if values.get("schema") != SCHEMA or set(values) != expected:
        raise ValueError(f"{path}: not a certificate of schema {SCHEMA}")
    try:
        laws = tuple(Verdict(**law) for law in values["laws"])
    except TypeError as error:
        raise ValueError(f"{path}: a law is incomplete: {error}") from error
    if unknown := {law.verdict for law in laws} - set(VERDICTS):
        raise ValueError(f"{path}: verdict {sorted(map(str, unknown))}, allowed are {', '.join(VERDICTS)}")
    return Certificate(values["attention"], values["source"], values["form"], laws, values["environment"])


def certificates(*folders: Path) -> list[Certificate]:
    """Read all valid certificates of the folders, then those shipped, then those shipped with earlier code."""
    paths = [path for folder in (*folders, SHIPPED) for path in sorted(folder.glob("*.json"))]
    found = []
    for path in (*paths, *sorted(EARLIER.rglob("*.json"))):
        try:
            found.append(read_certificate(path))
        except ValueError:
            continue
    return found


def certificate_summary(attention: str, sources: Iterable[str], found: Iterable[Certificate]) -> str | None:
    """Return what the certificates say about an attention whose code has these hashes.

    That is "19/19" or the like, for each device on which it was tested ("19/19; 18/18 quick on cuda"), "of other code"
    if none is of this code alone, and None if there is no certificate or no hash. Of several on the same device, one
    with a failing law counts, otherwise a full one.
    """
    sources, own = set(sources), [certificate for certificate in found if certificate.attention == attention]
    if not own or not sources:
        return None
    fitting = [certificate for certificate in own if {certificate.source} == sources]
    devices = [[each for each in fitting if each.device == device] for device in DEVICES]
    counting = [min(each, key=lambda each: (each.passed, each.form != "full")) for each in devices if each]
    return "; ".join(each.short for each in counting) or "of other code"
