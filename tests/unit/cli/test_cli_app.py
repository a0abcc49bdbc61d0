"""The command group: lazy, helpful, and one place for errors."""

import re
import subprocess
import sys
from collections.abc import Callable

import click
import pytest
from click.testing import CliRunner, Result

from serving.cli import output
from serving.cli.app import COMMANDS, LazyGroup, app
from serving.cli.output import CommandError, ExitCode, Output, Unreachable, output_options
from serving.config.problems import Problem
from serving.config.units import Seconds
from serving.errors import EngineError, InvalidConfig, SluiceError, StoreUnavailable


def run(*arguments: str) -> Result:
    """Call `sluice` with these arguments."""
    return CliRunner().invoke(app, arguments)


def group_of(body: Callable[[Output], object]) -> LazyGroup:
    """A command group with one command, `do`, that runs `body`."""

    class One(LazyGroup):
        def list_commands(self, _: click.Context) -> list[str]:
            return ["do"]

        def get_command(self, _: click.Context, cmd_name: str) -> click.Command | None:
            return do if cmd_name == "do" else None

    @click.command()
    @output_options
    def do(output: Output) -> None:
        body(output)

    return One(name="sluice", table={"do": "Do it."})


def raising(error: BaseException) -> Callable[[Output], object]:
    """A command body that fails."""

    def body(_: Output) -> None:
        raise error

    return body


def test_help_lists_every_command_that_exists_and_teaches_by_example() -> None:
    """Each line comes from the table; examples are shown as they are typed."""
    result = run("--help")

    assert result.exit_code == ExitCode.OK
    assert re.search(rf"^  check +{re.escape(COMMANDS['check'])}$", result.stdout, re.MULTILINE)
    assert "sluice up configs/demo" in result.stdout


def test_every_listed_command_has_help_with_examples() -> None:
    """Every module of the table gives a command of its name, and it teaches."""
    context = click.Context(app)
    assert isinstance(app, LazyGroup)

    for name in app.list_commands(context):
        assert app.get_command(context, name) is not None
        wanted = run(name, "new", "--help") if name == "tokens" else run(name, "--help")
        assert wanted.exit_code == ExitCode.OK
        assert "Example" in wanted.stdout, name
        assert f"sluice {name}" in wanted.stdout


def test_help_imports_no_heavy_module() -> None:
    """`sluice --help` and `sluice check --help` must not wait for numpy or onnxruntime."""
    program = (
        "import sys\n"
        "from serving.cli.app import app\n"
        "for arguments in (['--help'], ['check', '--help'], ['tokens', '--help']):\n"
        "    try:\n"
        "        app(arguments)\n"
        "    except SystemExit as ended:\n"
        "        assert ended.code == 0, ended.code\n"
        "heavy = {'numpy', 'onnx', 'onnxruntime', 'grpc', 'redis', 'yaml', 'httpx'}\n"
        "print('loaded:', sorted(heavy & sys.modules.keys()))\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )

    assert done.stderr == ""
    assert done.stdout.endswith("loaded: []\n")


def test_the_version_is_the_distribution_s() -> None:
    """`sluice --version` prints it in one line."""
    from importlib.metadata import version

    assert run("--version").stdout == f"sluice, version {version('sluice-gateway')}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["chek"], "error: no command `chek`; did you mean `check`?"),
        (["zzz"], "error: no command `zzz`\n"),
        (["check"], "error: Missing argument 'DIR'."),
        (["check", "--nope", "x"], "error: No such option"),
        (["--nope"], "error: No such option"),
    ],
)
def test_wrong_usage_exits_2_and_says_where_help_is(arguments: list[str], message: str) -> None:
    """The message is one line, the hint another; nothing is on standard output."""
    result = run(*arguments)

    assert result.exit_code == ExitCode.USAGE
    assert result.stderr.startswith(message)
    assert "hint: `sluice" in result.stderr
    assert result.stdout == ""


def test_no_command_at_all_shows_the_help_and_exits_2() -> None:
    """The help goes to standard error, since nothing was asked for."""
    result = run()

    assert result.exit_code == ExitCode.USAGE
    assert "Commands:" in result.stderr


@pytest.mark.parametrize(
    ("error", "code", "stderr"),
    [
        (CommandError("it is so", "try that"), ExitCode.NO, "error: it is so\nhint: try that\n"),
        (EngineError("port 8000 is taken"), ExitCode.NO, "error: port 8000 is taken\n"),
        (
            Unreachable("nobody answers at [::1]", "is `sluice up` running?"),
            ExitCode.UNREACHABLE,
            "error: nobody answers at [::1]\nhint: is `sluice up` running?\n",
        ),
        (StoreUnavailable("the store is away"), ExitCode.UNREACHABLE, "error: the store is away\n"),
        (click.ClickException("no such file"), ExitCode.NO, "error: no such file\n"),
        (click.BadParameter("not so"), ExitCode.USAGE, "error: Invalid value: not so\n"),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED, "error: interrupted\n"),
        (click.Abort(), ExitCode.NO, "error: stopped; nothing was changed\n"),
    ],
)
def test_an_error_is_a_message_a_hint_and_an_exit_code(
    error: BaseException, code: ExitCode, stderr: str
) -> None:
    """No traceback for what is raised on purpose; square brackets are text, not markup."""
    result = CliRunner().invoke(group_of(raising(error)), ["do"])

    assert result.exit_code == code
    assert result.stderr.lstrip("\n").startswith(stderr)
    assert "Traceback" not in result.stderr


def test_an_invalid_configuration_lists_its_problems() -> None:
    """Whatever command met it, every problem is a line of its own."""
    problems = tuple(Problem(file="gateway.yaml", line=n, message=f"wrong {n}") for n in (1, 2))
    error = InvalidConfig("gateway.yaml: wrong", problems)

    result = CliRunner().invoke(group_of(raising(error)), ["do"])

    assert result.exit_code == ExitCode.NO
    assert result.stderr.splitlines()[:2] == [
        "gateway.yaml:1:0: error: wrong 1",
        "gateway.yaml:2:0: error: wrong 2",
    ]
    assert result.stderr.splitlines()[2].startswith("error: the configuration has mistakes")


def test_a_bug_is_not_hidden() -> None:
    """An error nobody raised on purpose keeps its traceback."""
    result = CliRunner().invoke(group_of(raising(ZeroDivisionError())), ["do"])

    assert isinstance(result.exception, ZeroDivisionError)


def test_verbose_names_what_lies_underneath() -> None:
    """With -v the chain of causes is told, without it only the message."""
    error = SluiceError("outer")
    error.__cause__ = OSError("inner")

    quiet = CliRunner().invoke(group_of(raising(error)), ["do"])
    verbose = CliRunner().invoke(group_of(raising(error)), ["do", "-v"])

    assert "inner" not in quiet.stderr
    assert "caused by OSError: inner" in verbose.stderr


def test_json_and_people_are_never_mixed() -> None:
    """With --json standard output is one document and progress is silent."""

    def body(output: Output) -> None:
        output.note("working")
        output.say("hello")
        output.detail("detail")
        output.answer({"wait": Seconds(0.05), "rows": [1, 2]}, lambda: "50ms [bold]")

    people = CliRunner().invoke(group_of(body), ["do"])
    machine = CliRunner().invoke(group_of(body), ["do", "--json"])

    assert people.stdout == "hello\n50ms [bold]\n"
    assert people.stderr == "working\n"
    assert machine.stdout == '{\n  "wait": "50ms",\n  "rows": [\n    1,\n    2\n  ]\n}\n'
    assert machine.stderr == ""


def test_long_lines_and_colours_are_left_alone_where_nobody_looks(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Into a pipe a line stays one line, without escape sequences."""
    Output().say("x" * 500)
    output.print_error("y" * 500)

    written = capsys.readouterr()
    assert written.out == "x" * 500 + "\n"
    assert written.err == "error: " + "y" * 500 + "\n"
