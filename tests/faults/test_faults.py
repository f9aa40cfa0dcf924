"""Every section of the fault suite, with few repetitions, and what the suite makes of outcomes."""

import pytest

from tests.faults import __main__ as program
from tests.faults import enduring
from tests.faults.report import SECTIONS, Row, outcome_of, section_rows, tally

# How often at most, so that no section takes long here; `python -m tests.faults` does all of it.
COUNTS = {"downloads": 5, "caches": 2, "attacks": 1, "files": 100, "images": 40, "training": 3, "resuming": 4}
COUNTS |= {"enduring": 2, "dialects": 40}


@pytest.mark.slow
# TensorStore's callbacks, where Orbax has given up a broken checkpoint and closed its event loop.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", SECTIONS)
def test_section(name: str) -> None:
    rows = list(section_rows(name, COUNTS[name]))
    for row in rows:
        print(f"{row.tried}: {program.shown(row.outcomes)}")
    assert rows
    assert all(row.times for row in rows)
    assert not [line for row in rows for line in row.wrong]


def test_unwanted_outcomes_are_wrong() -> None:
    row = tally("a cut", [(1, "right file"), (2, "wrong file"), (3, "right file")], {"right file"})
    assert row == Row("a cut", {"right file": 2, "wrong": 1}, ("a cut (2): wrong file",))
    assert row.times == 3


def test_errors_are_clear_if_they_say_what_to_do() -> None:
    def fail(error: Exception) -> str:
        raise error

    assert outcome_of(lambda: "right", ValueError, "Set KERAS_HOME") == "right"
    assert outcome_of(lambda: fail(ValueError("No. Set KERAS_HOME.")), ValueError, "Set KERAS_HOME") == "clear error"
    assert "without" in outcome_of(lambda: fail(ValueError("No.")), ValueError, "Set KERAS_HOME")
    assert outcome_of(lambda: fail(KeyError("Set KERAS_HOME")), ValueError, "Set").startswith("KeyError")


def test_the_program_fails_if_anything_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [Row("a cut", {"right file": 2})]
    monkeypatch.setattr(program, "section_rows", lambda name, count: iter(found))
    assert program.main(["--section", "downloads", "--count", "2"]) == 0
    assert "2 right file" in capsys.readouterr().out
    found.append(Row("a stall", {"wrong": 1}, ("a stall (3): no answer",)))
    assert program.main(["--section", "downloads"]) == 1
    assert "WRONG: a stall (3): no answer" in capsys.readouterr().out


@pytest.mark.slow
def test_memory_without_a_bound_is_seen_to_grow() -> None:
    endured = enduring.in_a_process("predict", "--calls", "80", "--unbounded")
    assert endured.growth > enduring.ALLOWED_GROWTH
    assert endured.problems == [f"memory grew by {endured.growth:.0f} MB"]
