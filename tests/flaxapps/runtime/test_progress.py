"""The progress of long commands, on a terminal and in a file."""

import os
import pty
import re
import sys

import pytest

from flaxapps.runtime.progress import PhotoProgress


class Clock:
    """Seconds that pass as they are told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_file_gets_a_line_now_and_then_and_a_summary(capsys: pytest.CaptureFixture[str]):
    clock = Clock()
    with PhotoProgress("Predicting", 1000, clock) as progress:
        for _ in range(9):
            clock.now += 10
            progress.advance(100)
        progress.fail("a.jpg: not an image")
        clock.now += 10
        progress.advance(99)
    assert capsys.readouterr().err.splitlines() == [
        "flaxapps: Predicting: 300 of 1,000 photos, 10.0/s, 1:10 min left",
        "flaxapps: Predicting: 600 of 1,000 photos, 10.0/s, 40.0 s left",
        "flaxapps: Predicting: 900 of 1,000 photos, 10.0/s, 10.0 s left",
        "flaxapps: cannot read a.jpg: not an image",
        "flaxapps: 1,000 photos in 1:40 min, 10.0/s",
    ]


def test_a_short_command_says_nothing_to_a_file(capsys: pytest.CaptureFixture[str]):
    with PhotoProgress("Predicting", 3) as progress:
        progress.advance(3)
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar_the_devices_and_a_summary(monkeypatch: pytest.MonkeyPatch):
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", "80")
        clock = Clock()
        with PhotoProgress("Evaluating", 4, clock) as progress:
            clock.now += 2
            progress.advance(3)
            progress.fail("a.jpg: not an image")
        terminal.flush()
        shown = ""
        while "flaxapps: 4 photos" not in shown:  # a pseudo-terminal gives what it has, in pieces
            shown += os.read(ours, 1 << 16).decode()
    os.close(ours)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    assert re.match(r"Running on \d+ x \w+.* \(jax [\d.]+\)", text)
    assert "4/4" in text
    assert text.count("a.jpg") == 1
    assert "flaxapps: cannot read a.jpg: not an image" in text
    assert "flaxapps: 4 photos in 2.0 s, 2.0/s" in text
    assert "could not be read" not in text  # the command counts them at its end, on a terminal or not
