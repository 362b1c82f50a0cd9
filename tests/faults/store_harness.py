"""Kills a writer of checkpoints, and says what is then wrong with what it left; a script.

``points ROOT``: a fork of this process saves and prunes, and dies before its n-th file operation,
for every n. Besides what a kill leaves, two power cuts are acted out: one that takes the content of
files not forced to disk, one that takes the renames of directories not forced to disk.

``kills ROOT COUNT SEED``: SIGKILL at random times, always in the same directory.

Prints one JSON object. A fork of a process with JAX in it would be unsafe, hence a script of its
own; that it needs no JAX is one more thing it shows.
"""

import builtins
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ftfl.errors import FtflError
from ftfl.store import segments
from ftfl.store.checkpoint import (
    CheckpointStore,
    latest_valid,
    list_checkpoints,
    load_checkpoint,
)
from growing import problems, save

KEEP = 2
ENDINGS = ("killed", "contents lost", "names lost")


def work(root: Path, saves: int, report: Callable[[int], object] = lambda step: None) -> None:
    """Go on from the newest valid checkpoint; ``report`` hears of each save that returned."""
    base = latest_valid(root)[0] if list_checkpoints(root) else None
    store = CheckpointStore(root, base)
    first = 1 if base is None else base.step + 1
    for step in range(first, first + saves):
        save(store, step)
        report(step)
        store.prune(KEEP)


def wrong_with(root: Path, returned: int) -> list[str]:
    """What breaks the promise: visible is valid, and no finished save is ever lost."""
    found = []
    steps = [0]
    for path in list_checkpoints(root):
        try:
            found += problems(load_checkpoint(path))
            steps.append(int(path.name.removeprefix("step_")))
        except FtflError as error:
            found.append(str(error))
    if steps[-1] < returned:
        found.append(f"step {returned} was saved, but the newest is {steps[-1]}")
    return found


def leftovers(root: Path) -> list[str]:
    """Entries that neither are checkpoints nor are listed by one."""
    visible = list_checkpoints(root)
    listed = {
        segments.file_name(name, segment)
        for path in visible
        for name, spec in load_checkpoint(path, tables=False).segments.items()
        for segment in spec.segments
    }
    top = {entry.name for entry in root.iterdir()} - {path.name for path in visible} - {"segments"}
    return sorted(top | ({entry.name for entry in (root / "segments").iterdir()} ^ listed))


def goes_on(root: Path) -> list[str]:
    """What goes wrong when a new writer takes over."""
    try:
        work(root, 1)
    except FtflError as error:
        return [f"a new writer cannot go on: {error}"]
    return wrong_with(root, 0) + [f"left over: {name}" for name in leftovers(root)]


class Dying:
    """Counts file operations, dies before the one that is fatal, and knows what is not on disk."""

    def __init__(self, root: Path, fatal: int, ending: str) -> None:
        self.root, self.fatal, self.ending, self.count = root, fatal, ending, 0
        self.unsaved: dict[int, str] = {}  # inode: path of a file whose content is not forced out
        self.renamed: list[tuple[str, str]] = []  # by rename, not forced out, oldest first

    def install(self) -> None:
        opened, fsync, replace = builtins.open, os.fsync, os.replace
        for name in ("mkdir", "unlink", "rmdir", "open"):
            setattr(os, name, self.deadly(getattr(os, name)))

        def open_(path, mode="r", *args, **kwargs):
            self.tick()
            file = opened(path, mode, *args, **kwargs)
            if set(mode) & set("wa+"):
                self.unsaved[os.fstat(file.fileno()).st_ino] = str(path)
            return file

        def fsync_(descriptor):
            self.tick()
            if os.path.isdir(folder := os.readlink(f"/proc/self/fd/{descriptor}")):
                self.renamed = [r for r in self.renamed if os.path.dirname(r[1]) != folder]
            self.unsaved.pop(os.fstat(descriptor).st_ino, None)
            fsync(descriptor)

        def replace_(source, target):
            self.tick()
            kept = os.path.lexists(target)
            replace(source, target)
            if not kept:
                self.renamed.append((str(source), str(target)))

        builtins.open, os.fsync, os.replace, os.rename = open_, fsync_, replace_, replace_

    def deadly(self, function):
        def wrapped(*args, **kwargs):
            self.tick()
            return function(*args, **kwargs)

        return wrapped

    def tick(self) -> None:
        self.count += 1
        if self.count == self.fatal:
            self.die()

    def die(self) -> None:
        self.fatal = 0
        if self.ending == "contents lost":
            for folder, _, names in os.walk(self.root):
                for name in names:
                    path = os.path.join(folder, name)
                    if os.lstat(path).st_ino in self.unsaved:
                        os.truncate(path, os.path.getsize(path) // 2)
        if self.ending == "names lost":
            for source, target in reversed(self.renamed):
                if os.path.lexists(target) and not os.path.lexists(source):
                    shutil.move(target, source)
        os._exit(9)


def started(root: Path, saves: int, dying: Dying | None = None) -> tuple[int, int]:
    """A fork at work: its process id, and a pipe in which it says each step that is saved."""
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        return child, reader
    if dying is not None:
        dying.install()
    try:
        work(root, saves, lambda step: os.write(writer, f"{step:8d}\n".encode()))
    except FtflError as error:
        print(error, file=sys.stderr)
        os._exit(3)
    os._exit(0)


def ended(child: int, reader: int) -> tuple[int, int]:
    """The exit code of a fork, minus the signal that killed it, and the last step it saved."""
    _, status = os.waitpid(child, 0)
    with open(reader) as file:
        return os.waitstatus_to_exitcode(status), max(map(int, file), default=0)


def points(root: Path) -> dict[str, object]:
    """Every operation of the first save and prune in a directory, and of a later one."""
    os.fsync = lambda descriptor: None  # slow, and what it does is acted out here
    result: dict[str, object] = {}
    wrong = []
    for before in (0, 5):
        model = root / f"after_{before}"
        model.mkdir()
        work(model, before)
        fatal, died = 0, True
        while died:
            fatal += 1
            for ending in ENDINGS:
                place = root / f"{before}_{fatal}_{ending}"
                shutil.copytree(model, place)
                code, returned = ended(*started(place, 1, Dying(place, fatal, ending)))
                died = code == 9
                found = wrong_with(place, max(before, returned)) + goes_on(place)
                found += [] if code in (0, 9) else [f"the writer ended with {code}"]
                wrong += [f"{ending} at {fatal} after {before} saves: {what}" for what in found]
                shutil.rmtree(place)
        result[f"points_after_{before}"] = fatal - 1
    return result | {"wrong": wrong}


def kills(root: Path, count: int, seed: int) -> dict[str, object]:
    """SIGKILL at random times, of writers that go on from each other's ruins."""
    rng = np.random.default_rng(seed)
    wrong: list[str] = []
    reached = 0
    for _ in range(count):
        child, reader = started(root, 10**6)
        # Some saves later, so that on a slow machine too it is killed in the midst of things.
        for _ in range(rng.integers(3)):
            reached = int(os.read(reader, 9) or 0)
        time.sleep(rng.uniform(0, 0.05))
        os.kill(child, signal.SIGKILL)
        code, last = ended(child, reader)
        reached = max(reached, last)
        wrong += [] if code == -signal.SIGKILL else [f"the writer ended with {code}"]
        wrong += wrong_with(root, reached)
    return {"reached": reached, "wrong": wrong + goes_on(root)}


if __name__ == "__main__":
    verb, place, *numbers = sys.argv[1:]
    answer = {"points": points, "kills": kills}[verb](Path(place), *map(int, numbers))
    print(json.dumps({**answer, "jax": "jax" in sys.modules}))
