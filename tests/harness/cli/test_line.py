"""A line that is no command, or not what its command takes, is refused in one line; whatever tyro takes is not."""

import functools

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from harness.cli import main
from harness.cli.line import Parameter, _parameters, check_line
from harness.cli.main import COMMANDS
from tests.harness.command_line import Ask, refused
from tests.nightly import LINES

PARAMETERS = {name: list(_parameters(command)) for name, command in COMMANDS.items()}
OPTIONS = [
    pytest.param(command, parameter, id=f"{command} {parameter.name}")
    for command, parameters in PARAMETERS.items()
    for parameter in parameters
    if parameter.name.startswith("--")
]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "give a command: list, show, run, "),
        ("trian", "unknown command 'trian'; did you mean train? (see attention-bench --help)"),
        ("--dry-run", "unknown command '--dry-run' (see attention-bench --help)"),
        ("train swin_t --data", "--data needs a value: --data NAME|FOLDER (see attention-bench train --help)"),
        ("run --data --dry-run", "--data needs a value: --data NAME|FOLDER (see attention-bench run --help)"),
        ("run quickstart --epochs ten", "--epochs ten: it takes a whole number (see attention-bench run --help)"),
        ("run quickstart --epochs=1.5", "--epochs 1.5: it takes a whole number (see attention-bench run --help)"),
        ("train swin_t --seed 0 one", "--seed one: it takes a whole number (see attention-bench train --help)"),
        ("status --every often", "--every often: it takes a number (see attention-bench status --help)"),
        ("status --watch=yes", "--watch=yes: --watch takes no value (see attention-bench status --help)"),
        (
            "status --wtach",
            "unknown option --wtach of status; did you mean --watch? (see attention-bench status --help)",
        ),
        (
            "train swin_t --epochs ten",
            "unknown option --epochs of train; did you mean --change epochs=VALUE? (see attention-bench train --help)",
        ),
        ("show", "show needs PRESET (see attention-bench show --help)"),
        ("train", "train needs PRESET and --data NAME|FOLDER (see attention-bench train --help)"),
        (
            "run quickstart paper_costs",
            "'paper_costs' is one argument too many: run takes [SWEEP] (see attention-bench run --help)",
        ),
        ("list all sweeps", "'sweeps' is one argument too many: list takes [KIND] (see attention-bench list --help)"),
        ("table -o", "-o needs a value: -o FILE (see attention-bench table --help)"),
        ("data chek photos", "data chek: allowed: check, race (see attention-bench data --help)"),
        (
            "reproduce flatten --accuracy all",
            "--accuracy all: allowed: any, evaluated, trained (see attention-ben",
        ),
    ],
)
def test_what_is_no_line_of_ours_is_refused_with_what_is_allowed(ask: Ask, line: str, said: str) -> None:
    assert refused(ask, line).startswith(said)


@pytest.mark.parametrize(("command", "option"), OPTIONS)
def test_every_option_is_refused_in_a_line_that_names_it(ask: Ask, command: str, option: Parameter) -> None:
    """Misspelt, without its value, and with one of another type."""
    assert f"did you mean {option.name}" in refused(ask, f"{command} {option.name}s")
    if option.kind is bool:
        return
    if not option.several:
        assert refused(ask, f"{command} {option.name}").startswith(f"{option.name} needs a value: {option.name} ")
    # The last words are those of arguments that are needed.
    if option.kind in (int, float) or option.choices:
        assert refused(ask, f"{command} {option.name} x x x").startswith(f"{option.name} x: ")


WORDS = st.sampled_from(["x", "1", "-1", "0.5", "None", "any", "detect", "check", "--", "a=b", "-x"])


@st.composite
def lines(draw: st.DrawFn) -> list[str]:
    """Lines of a command's own options and of words, in any order."""
    command = draw(st.sampled_from(list(COMMANDS)))
    options = [each for each in PARAMETERS[command] if each.name.startswith("--")]
    name = st.sampled_from([each.name for each in options] or ["--x"])
    # Not of flags: tyro drops the value, and takes --dry-run=no for --dry-run. Nor of several: it may be an argument.
    single = [each.name for each in options if each.kind is not bool and not each.several]
    attached = st.sampled_from(single or ["--x"]).map(lambda name: f"{name}=1")
    option = name | name.map(lambda name: name.replace("-", "_").replace("__", "--")) | attached
    return [command, *draw(st.lists(option | WORDS | WORDS, max_size=6))]


@settings(max_examples=LINES, deadline=None, derandomize=True, database=None)
@given(lines())
def test_what_it_refuses_is_what_tyro_refuses(line: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, command in COMMANDS.items():
            patch.setitem(COMMANDS, name, functools.wraps(command)(lambda *arguments, **options: 0))
        refusal = ""
        try:
            check_line(COMMANDS, line)
        except ValueError as problem:
            refusal = str(problem)
        status: object = 0
        try:
            main.call(line, console_outputs=False)
        except SystemExit as leave:
            status = leave.code
    event("refused" if refusal else "taken")
    # What follows `--` is left to tyro. Of an option that is given twice it takes the last one, and we take neither.
    taken = not status and "is given twice" in refusal
    assert bool(status) == bool(refusal) or (status and "--" in line) or taken, (line, refusal)
