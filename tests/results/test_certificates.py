"""Certificates survive the disk, a damaged one is named, and none speaks for other code."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from results import SOURCE, Certificate, Verdict, certificate_summary, certificates, read_certificate, write_certificate
from results.certificates import EARLIER
from results.tables import table

# The function `results.certificates` hides its module.
certificates_module = sys.modules["results.certificates"]

LAWS = tuple(
    Verdict(law, verdict, "a detail", 0.5)
    for law, verdict in (("builds", "pass"), ("mask", "exempt"), ("macs", "pass"), ("batch", "pass"))
)
SOUND = Certificate("mine(k=3)", "0123456789abcdef", "full", LAWS, {"torch": "2.11.0"})
BROKEN = replace(SOUND, laws=(*LAWS[:2], replace(LAWS[2], verdict="fail"), replace(LAWS[3], verdict="fail")))


def test_it_comes_back_equal(tmp_path: Path) -> None:
    assert read_certificate(write_certificate(tmp_path / "new", SOUND)) == SOUND


def test_options_have_files_of_their_own(tmp_path: Path) -> None:
    paths = {write_certificate(tmp_path, replace(SOUND, attention=f"mine(k={k})")) for k in (3, 5)}
    assert len(paths) == 2
    assert write_certificate(tmp_path, BROKEN) in paths


@pytest.mark.parametrize(
    ("certificate", "short"),
    [
        (SOUND, "3/4 (1 exempt)"),
        (replace(SOUND, laws=LAWS[:1], form="quick"), "1/1 quick"),
        (BROKEN, "fails macs, batch"),
    ],
)
def test_it_is_said_in_a_few_words(certificate: Certificate, short: str) -> None:
    assert certificate.short == short


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema": 2}, "not a certificate of schema 1"),
        ({"laws": [{"law": "macs"}]}, "a law is incomplete"),
        (
            {"laws": [{"law": "macs", "verdict": "maybe", "detail": "", "seconds": 0}]},
            "verdict .*maybe.*allowed are pass",
        ),
        ({"more": 1}, "not a certificate"),
    ],
)
def test_a_damaged_one_is_named(tmp_path: Path, change: dict, said: str) -> None:
    path = write_certificate(tmp_path, SOUND)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=said) as problem:
        read_certificate(path)
    assert str(path) in str(problem.value)
    assert SOUND.attention not in {found.attention for found in certificates(tmp_path)}


def test_half_a_file_is_named(tmp_path: Path) -> None:
    path = write_certificate(tmp_path, SOUND)
    path.write_text(path.read_text()[:100])
    with pytest.raises(ValueError, match="not a complete JSON file"):
        read_certificate(path)


def test_it_speaks_for_its_own_code_only() -> None:
    found = [BROKEN, replace(SOUND, source="f" * 16)]
    assert certificate_summary(SOUND.attention, [SOUND.source], found) == "fails macs, batch"
    assert certificate_summary(SOUND.attention, ["f" * 16], found) == "3/4 (1 exempt)"
    assert certificate_summary(SOUND.attention, ["1" * 16], found) == "of other code"
    # Numbers of two kinds of code stand in one row.
    assert certificate_summary(SOUND.attention, [SOUND.source, "f" * 16], found) == "of other code"
    assert certificate_summary(SOUND.attention, [], found) is None
    assert certificate_summary("mine(k=5)", [SOUND.source], found) is None


def test_the_full_form_speaks_before_the_quick_one_and_takes_its_place(tmp_path: Path) -> None:
    quick, elsewhere = replace(SOUND, form="quick"), tmp_path / "elsewhere"
    write_certificate(elsewhere, SOUND)
    write_certificate(tmp_path, quick)
    assert certificates(tmp_path, elsewhere)[:2] == [quick, SOUND]
    assert certificate_summary(SOUND.attention, [SOUND.source], certificates(tmp_path, elsewhere)) == SOUND.short
    # What fails is not hidden by what held elsewhere.
    fails = replace(BROKEN, form="quick")
    assert certificate_summary(SOUND.attention, [SOUND.source], [SOUND, fails]) == fails.short
    write_certificate(tmp_path, SOUND)
    assert certificates(tmp_path)[0] == SOUND
    assert len(list(tmp_path.glob("*.json"))) == 1
    write_certificate(tmp_path, quick)
    assert len(list(tmp_path.glob("*.json"))) == 2


def test_each_device_has_a_file_of_its_own_and_speaks_for_itself(tmp_path: Path) -> None:
    on_gpu = replace(SOUND, laws=LAWS[:1], environment={"device": "cuda"})
    quick = replace(on_gpu, form="quick")
    assert [each.short for each in (on_gpu, quick)] == ["1/1 on cuda", "1/1 quick on cuda"]

    def shown() -> str | None:
        return certificate_summary(SOUND.attention, [SOUND.source], certificates(tmp_path))

    write_certificate(tmp_path, quick)
    assert shown() == "1/1 quick on cuda"
    write_certificate(tmp_path, SOUND)
    assert shown() == "3/4 (1 exempt); 1/1 quick on cuda"
    write_certificate(tmp_path, on_gpu)
    assert shown() == "3/4 (1 exempt); 1/1 on cuda"
    write_certificate(tmp_path, replace(BROKEN, environment={"device": "cuda"}))
    assert shown() == "3/4 (1 exempt); fails macs, batch on cuda"
    assert len(list(tmp_path.glob("*.json"))) == 2


def test_a_record_of_earlier_code_shows_the_certificate_that_shipped_with_it(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier, today = tmp_path / "shipped" / "earlier", tmp_path / "shipped"
    write_certificate(earlier, SOUND)
    write_certificate(today, replace(BROKEN, source="f" * 16))
    monkeypatch.setattr(certificates_module, "SHIPPED", today)
    monkeypatch.setattr(certificates_module, "EARLIER", earlier)
    found = certificates(tmp_path / "run")
    shown = [
        table([make.record("a", make.cell("swin_t", SOUND.attention, make.costs), environment={SOURCE: source})],
              certificates=found)["certificate"][0]
        for source in (SOUND.source, "f" * 16, "1" * 16)
    ]  # fmt: skip
    assert shown == [SOUND.short, BROKEN.short, "of other code"]


def test_the_earlier_certificates_ship_whole() -> None:
    paths = sorted(EARLIER.rglob("*.json"))
    assert len(paths) >= 44
    for path in paths:
        certificate = read_certificate(path)
        assert certificate_summary(certificate.attention, [certificate.source], certificates()) == certificate.short
