r"""A sheet as a LaTeX table: booktabs' rules, siunitx' columns, the best number bold and the second underlined.

The document needs \usepackage{booktabs, siunitx, graphicx}. A table wider than the text is scaled down to it.
"""

import re
import unicodedata
from collections.abc import Sequence

import pandas as pd

from results.sheets import Sheet
from results.tables import schema

_NUMBER = re.compile(r"([+-]?)(\d+)(?:\.(\d+))?(?: ± (\d+)(?:\.(\d+))?)?")
_ESCAPED = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "…": r"\dots{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "[": "{[}", "*": "{*}", "ß": r"\ss{}", "ø": r"\o{}", "Ø": r"\O{}", "æ": r"\ae{}",
    "Æ": r"\AE{}", "œ": r"\oe{}", "ł": r"\l{}", "Ł": r"\L{}", "–": "--", "—": "---", "·": r"$\cdot$", "−": "$-$",
    "→": r"$\rightarrow$", "∞": r"$\infty$", "≈": r"$\approx$", "“": "``", "”": "''", "’": "'",
    "≥": r"$\geq$", "≤": r"$\leq$", "×": r"$\times$",
}  # fmt: skip
_ACCENTS = {
    "\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0307": ".", "\u0308": '"',
    "\u030a": "r", "\u030c": "v", "\u0327": "c",
}  # fmt: skip
_GREEK = (
    "ALPHA BETA GAMMA DELTA EPSILON ZETA ETA THETA IOTA KAPPA LAMDA MU NU XI PI RHO SIGMA TAU UPSILON PHI CHI PSI OMEGA"
)
_GREEK_CAPITALS = "GAMMA DELTA THETA LAMDA XI PI SIGMA UPSILON PHI PSI OMEGA"
_MARK = " (disturbed)"
_DAGGER = r"\textsuperscript{\textdagger}"
_DISTURBED = "Measured while others used the machine: not to be compared, and not ranked."
# graphicx knows the natural width of the box that it is given.
_NO_WIDER = r"\ifdim\width>\linewidth\linewidth\else\width\fi"
_RANKED = "Bold: the best of the rows that may be compared, by value; underlined: the second best."


def to_latex(sheet: Sheet) -> str:
    """Return a table environment; what differs and what was disturbed is said below it, the conventions in the caption.

    Numbers keep the digits of the sheet. What is no number stands in braces.
    """
    sheet = sheet.settled()
    columns = list(zip(*sheet.rows, strict=True)) if sheet.rows else [()] * len(sheet.headers)
    forms = [_number_form(cells) if p in sheet.right else None for p, cells in enumerate(columns)]
    written = [
        [_cell(cell, forms[p], (row, p) in sheet.best, (row, p) in sheet.second) for row, cell in enumerate(cells)]
        for p, cells in enumerate(columns)
    ]
    headers = [_header(header, form is not None) for header, form in zip(sheet.headers, forms, strict=True)]
    # Headers may be alike only after they are written, and pandas wants them distinct.
    frame = pd.DataFrame(dict(enumerate(written)))
    frame.columns = pd.Index(headers)
    layout = "".join(
        f"S[table-format={form}]" if form else "r" if position in sheet.right else "l"
        for position, form in enumerate(forms)
    )
    tabular = frame.style.hide(axis="index").to_latex(column_format=layout, hrules=True)
    lines = [
        r"% needs \usepackage{booktabs, siunitx, graphicx}",
        r"\begin{table}",
        r"\centering",
        r"\sisetup{separate-uncertainty=true, retain-explicit-plus=true, detect-weight=true, mode=text}",
        rf"\caption{{{_escaped(_caption(sheet))}}}",
        r"\smallskip",
        rf"\resizebox{{{_NO_WIDER}}}{{!}}{{%",
        tabular.strip(),
        "}",
        *_below(sheet),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _number_form(cells: Sequence[str]) -> str | None:
    """Return siunitx' table-format of the numbers of a column, as in 2.2(2); None if there is none."""
    found = [match.groups() for match in map(_NUMBER.fullmatch, cells) if match]
    if not found:
        return None
    sign = "+" if any(each[0] for each in found) else ""
    whole = max(len(each[1]) for each in found)
    decimals = max(len(each[2] or "") for each in found)
    uncertain = [each for each in found if each[3]]
    digits = max((len(((each[3] or "") + (each[4] or "")).lstrip("0")) for each in uncertain), default=0)
    return f"{sign}{whole}.{decimals}" + (f"({max(digits, 1)})" if uncertain else "")


def _cell(text: str, form: str | None, best: bool, second: bool) -> str:
    if text.endswith(_MARK):
        marked = f"{_escaped(text.removesuffix(_MARK))}{_DAGGER}"
        return marked if form is None else f"{{{marked}}}"
    if form is None:
        return "--" if text == "-" else _escaped(text)
    if not _NUMBER.fullmatch(text):
        return "{--}" if text == "-" else f"{{{_escaped(text)}}}"
    number = text.replace(" ± ", " +- ")
    if second:
        # siunitx underlines nothing: the number is text of the width that its column has.
        whole = int(form.lstrip("+").partition(".")[0]) - len(_NUMBER.fullmatch(text)[2])  # type: ignore[index]
        padding = rf"\phantom{{{'0' * whole}}}" if whole else ""
        return rf"{{{padding}\underline{{\num{{{number}}}}}}}"
    return rf"\bfseries {number}" if best else number


def _header(text: str, is_number: bool) -> str:
    found = schema.of_metric(text)
    unit = f" ({found.unit})" if found and found.unit not in ("", "1") and "(" not in text else ""
    escaped = _escaped(text + unit)
    return f"{{{escaped}}}" if is_number else escaped


def _caption(sheet: Sheet) -> str:
    parts = [sheet.title]
    if sheet.best:
        parts.append(_RANKED)
    return " ".join(filter(None, parts)) or "Measured by attention-bench."


def _below(sheet: Sheet) -> list[str]:
    notes = [_escaped(note) for note in sheet.notes]
    if any(cell.endswith(_MARK) for row in sheet.rows for cell in row):
        notes.insert(0, f"{_DAGGER} {_DISTURBED}")
    lines = [f"{note}\\par" for note in notes]
    return [r"\par\smallskip", r"\begin{minipage}{\linewidth}\footnotesize", *lines, r"\end{minipage}"] if lines else []


def _escaped(text: str) -> str:
    # Two hyphens are an option of a command, not a dash.
    text = re.sub("-(?=-)", "-\0", unicodedata.normalize("NFC", text.replace("\n", " ")))
    return "".join("{}" if character == "\0" else _character(character) for character in text)


def _character(character: str) -> str:
    """Return a character as pdflatex takes it; one that its fonts lack by its number."""
    if character in _ESCAPED:
        return _ESCAPED[character]
    if character.isascii():
        return character
    base, *accents = list(unicodedata.normalize("NFD", character))
    if base.isascii() and len(accents) == 1 and accents[0] in _ACCENTS:
        return rf"\{_ACCENTS[accents[0]]}{{{base}}}"
    greek = re.fullmatch("GREEK (SMALL|CAPITAL) LETTER ([A-Z]+)", unicodedata.name(character, ""))
    if greek and greek[2] in (_GREEK if greek[1] == "SMALL" else _GREEK_CAPITALS).split():
        name = greek[2].replace("LAMDA", "LAMBDA")
        return rf"$\{name.lower() if greek[1] == 'SMALL' else name.title()}$"
    return f"(U+{ord(character):04X})"
