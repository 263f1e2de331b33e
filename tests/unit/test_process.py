from __future__ import annotations

from pathlib import Path

import pytest
from ansible.module_utils.cow import process
from ansible.module_utils.cow.errors import CowError


def test_output_and_status() -> None:
    finished = process.run(["sh", "-c", "echo out; echo err >&2; exit 3"], accept=(0, 3))
    assert (finished.status, finished.stdout, finished.stderr) == (3, "out\n", "err\n")


def test_arguments_are_not_interpreted() -> None:
    assert process.run(["printf", "%s|", "$HOME", "a b", "*", "; false"]).stdout == "$HOME|a b|*|; false|"


def test_the_locale_is_c_and_the_environment_the_host_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("LANGUAGE", "de")
    monkeypatch.setenv("KEPT", "yes")
    script = 'echo "$LC_ALL|$LANGUAGE|$KEPT|$OWN"'
    assert process.run(["sh", "-c", script], environment={"OWN": "mine"}).stdout == "C||yes|mine\n"


def test_nothing_can_be_read_from_stdin() -> None:
    assert process.run(["cat"]).stdout == ""


def test_undecodable_output_is_escaped() -> None:
    assert process.run(["printf", r"\377"]).stdout == "\\xff"


def test_failure_says_command_status_and_message() -> None:
    with pytest.raises(process.CommandFailed) as failure:
        process.run(["sh", "-c", "echo reason >&2; exit 4"])
    assert str(failure.value) == "`sh -c 'echo reason >&2; exit 4'` ended with status 4: reason"
    assert failure.value.finished.status == 4


def test_failure_without_a_message_says_so() -> None:
    with pytest.raises(process.CommandFailed, match="nothing on its output"):
        process.run(["false"])


def test_missing_program() -> None:
    with pytest.raises(process.CommandMissing, match="no-such-program is not installed"):
        process.run(["no-such-program"])


def test_program_that_cannot_be_started(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.touch(mode=0o644)
    with pytest.raises(CowError, match="could not be started: Permission denied"):
        process.run([str(program)])


def test_too_long() -> None:
    with pytest.raises(CowError, match=r"`sleep 60` did not end within 0\.05 s"):
        process.run(["sleep", "60"], timeout=0.05)
