"""Damaged files and who reads them: a process of its own, which may die or hang; and what is made of its answers."""

import collections
import io
import json
import os
import selectors
import subprocess
import sys
import zipfile

import h5py

from tests.places import ROOT
from weight_port.layout import is_nested

SECONDS = 10
SUFFIXES = [".keras", ".h5", ".weights.h5"]


def saved_by_keras(model, folder):
    """The bytes of a Keras model in every format that Keras writes now."""
    found = {}
    for suffix in SUFFIXES:
        path = folder / f"model{suffix}"
        (model.save_weights if suffix == ".weights.h5" else model.save)(path)
        found[suffix] = path.read_bytes()
    return found


def describe(model):
    """The layers of a model in plain lists, for the worker."""
    return [
        [
            layer.name,
            layer.class_name,
            {} if is_nested(layer) else {leaf: [each.shape, each.collection] for leaf, each in layer.weights.items()},
            describe(layer) if is_nested(layer) else None,
        ]
        for layer in model.layers
    ]


class Reader:
    """A worker that is started again when it dies or hangs.

    Args:
        description: Of the model that all files are for; None for files of whole models, each of which describes one.
    """

    def __init__(self, description):
        self.description = json.dumps(description)
        self.process = None

    def start(self):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.weight_port.malformed_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"},
            text=True,
        )
        self.process.stdin.write(self.description + "\n")

    def stop(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process.stdin.close()
            self.process.stdout.close()
            self.process = None

    def __call__(self, path):
        fresh = self.process is None
        if fresh:
            self.start()
        try:
            self.process.stdin.write(f"{path}\n")
            self.process.stdin.flush()
            with selectors.DefaultSelector() as selector:
                selector.register(self.process.stdout, selectors.EVENT_READ)
                answered = selector.select(SECONDS + 50 * fresh)  # it has to import h5py or JAX first
            line = self.process.stdout.readline() if answered else ""
        except BrokenPipeError:
            answered, line = True, ""
        if line:
            return json.loads(line)
        code = self.process.wait() if answered else None
        self.stop()
        failure = f"the interpreter died: {code}" if answered else f"no answer within {SECONDS} seconds"
        return (
            {"model": {"failed": failure}}
            if self.description == "null"
            else {"weights": {"failed": failure}, "config": {}}
        )


def array_bytes(content):
    """The places of the bytes of arrays, which carry no checksum."""
    places = set()

    def add(_, item):
        if isinstance(item, h5py.Dataset) and item.id.get_offset() is not None:
            places.update(range(item.id.get_offset(), item.id.get_offset() + item.id.get_storage_size()))

    with h5py.File(io.BytesIO(content), "r") as file:
        file.visititems(add)
    return places


class Verdicts:
    """Counts what became of damaged files, and keeps the reasons of what should not be."""

    def __init__(self, right):
        self.right = right
        self.counts = collections.Counter()
        self.wrong = []

    def add(self, label, found, values_may_differ):
        for kind, answer in found.items():
            if "failed" in answer:
                self.note(f"{kind} failed", label, answer["failed"])
        given = found["weights"].get("read")
        if "refused" in found["weights"]:
            self.counts["refused"] += 1
        elif given == self.right:
            self.counts["right"] += 1
        elif given is not None:
            same_shapes = {name: entry[:2] for name, entry in given.items()} == {
                name: entry[:2] for name, entry in self.right.items()
            }
            if same_shapes and values_may_differ:
                self.counts["values"] += 1
            else:
                self.note("wrong weights", label, [name for name in given if given[name] != self.right.get(name)])

    def note(self, kind, label, reason):
        self.counts[kind] += 1
        self.wrong.append(f"{kind}: {label}: {reason}")


def mutations(content, source, count):
    """Files with one to three bytes changed, and the places of these."""
    for _ in range(count):
        places = [source.randrange(len(content)) for _ in range(source.choice((1, 1, 2, 3)))]
        changed = bytearray(content)
        for place in places:
            changed[place] = source.choice((0, 255, changed[place] ^ 1 << source.randrange(8), source.randrange(256)))
        yield bytes(changed), [place for place in places if changed[place] != content[place]]


def read_members(content):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def changed_archive(path, content, change, compression=zipfile.ZIP_STORED):
    """An archive whose members have gone through `change`."""
    members = read_members(content)
    change(members)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, member in members.items():
            archive.writestr(name, member)
