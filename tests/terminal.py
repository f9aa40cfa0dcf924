"""A program in a real pseudo-terminal."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios

CONTROL = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def run_in_terminal(arguments: list[str], columns: int = 80) -> tuple[int, list[str]]:
    """Runs a Python program with this interpreter; returns its exit code and the lines that it printed."""
    ours, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    command = [sys.executable, *arguments]
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), terminal)
    with subprocess.Popen(command, env=environment | {"TERM": "xterm-256color"}, **streams) as process:
        os.close(terminal)
        printed = b""
        while part := _read(ours):
            printed += part
    os.close(ours)
    lines = CONTROL.sub("", printed.decode()).replace("\r\n", "\n").split("\n")
    return process.returncode, [line.rpartition("\r")[2].rstrip() for line in lines]


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # the program has ended
        return b""
