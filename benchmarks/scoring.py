"""Speed and memory of `digits score` on this machine, and reference speeds.

Needs Linux and a published model of digits; see `digits train`. Run as python -m benchmarks.scoring.

`pure sum` is the rate at which these cores could at best decode, prepare and predict the pictures: cores
divided by the CPU seconds of these three for one picture, in the script and in the model server. Other load
hardly changes it, unlike the other rates. The memory of a process is its proportional set size (PSS); its
slope is that of a straight line through the samples between the first and the last file of results.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.cost import cpu_seconds
from benchmarks.startup import DIGITS, children, proportional_set_size
from digit_client import ModelServerClient
from digit_core.artifact.models_folder import ModelsFolder
from digit_core.images import to_png
from digit_serving.processes import ProcessGroup
from digit_serving.scoring import job
from digit_training.data import SAMPLE

CALL = 256
BATCH = 1024
SAMPLE_SECONDS = 1.0
KINDS = ("driver", "workers", "model server")
SPEED = re.compile(r"^Speed +([\d,]+) pictures/s, after ([\d.]+) s$", re.MULTILINE)


def main() -> None:
    """Print the speeds for `--count` pictures, and the memory over `--memory-count` pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--count", type=int, default=20_000, help="pictures for the speeds")
    parser.add_argument(
        "--memory-count", type=int, default=100_000, help="pictures for the memory; 0: no run"
    )
    parser.add_argument("--picture", type=Path, help="a file to score again and again, in place of digits")
    arguments = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    print_row("cores, load average", cores, os.getloadavg()[0])
    with TemporaryDirectory() as folder:
        paths = draw(Path(folder) / "in", arguments.count, arguments.picture)
        rate, start = score(arguments.models, Path(folder))
        with ProcessGroup() as group:
            version = ModelsFolder(arguments.models).labelled("digits")
            assert version
            with job.serving(version, arguments.models, group) as target:
                bulk = predict_many(target, paths)
                pure = cores / seconds_per_picture(target, paths)
        print_row("start, s", start)
        print_row("digits score, pictures/s", rate)
        print_row("predict_many, pictures/s", bulk)
        print_row("pure sum, pictures/s", pure)
        print_row("digits score to pure sum", rate / pure)
    if arguments.memory_count:
        with TemporaryDirectory() as folder:
            draw(Path(folder) / "in", arguments.memory_count, arguments.picture)
            print_memory(arguments.models, Path(folder))


def draw(folder: Path, count: int, picture: Path | None) -> list[Path]:
    """Write so many picture files, a thousand to a subfolder, and return their paths."""
    with np.load(SAMPLE) as sample:
        files = [picture.read_bytes()] if picture else [to_png(digit) for digit in sample["x_train"]]
    paths = [folder / f"{number // 1000:04}" / f"{number:07}.png" for number in range(count)]
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(files[number % len(files)])
    return paths


def score(models: Path, folder: Path) -> tuple[float, float]:
    """Return the pictures a second of `digits score` after its start, and the seconds of the start."""
    summary = subprocess.run(command(models, folder), check=True, capture_output=True, text=True).stdout
    found = SPEED.search(summary)
    assert found, summary
    return float(found[1].replace(",", "")), float(found[2])


def command(models: Path, folder: Path) -> list[str]:
    """Return the command that scores the folder's pictures."""
    arguments = [folder / "in", "--output", folder / "out", "--models", models, "--batch", BATCH]
    return [*DIGITS, "score", *map(str, arguments)]


def predict_many(target: str, paths: list[Path]) -> float:
    """Return the pictures a second of one call of `predict_many`, with its default concurrency."""
    with ModelServerClient(target, label=None, timeout=60) as client:
        client.predict_many(paths[:CALL])
        started = time.monotonic()
        client.predict_many(paths)
        return len(paths) / (time.monotonic() - started)


def seconds_per_picture(target: str, paths: list[Path]) -> float:
    """Return the CPU seconds of a picture in memory, here and in the model server, without concurrency."""
    contents = [path.read_bytes() for path in paths]
    (pid,) = (child for child in children(os.getpid()) if "model-server" in command_line(child))
    with ModelServerClient(target, label=None, timeout=60) as client:
        started = time.process_time() + cpu_seconds(pid)
        client.predict_many(contents, concurrency=1)
        return (time.process_time() + cpu_seconds(pid) - started) / len(paths)


def print_memory(models: Path, folder: Path) -> None:
    """Print the memory at the first and the last sample of a run, and its slope, by kind of process."""
    scored, samples = [], []
    process = subprocess.Popen(command(models, folder), stdout=subprocess.DEVNULL)
    while process.poll() is None:
        time.sleep(SAMPLE_SECONDS)
        if done := len(list((folder / "out").glob("part-*"))):
            scored.append(done * BATCH)
            samples.append(memory(process.pid))
    assert process.returncode == 0
    # Samples of the time when workers are busy: before the last file, and before the workers end.
    busy = np.array(scored) < scored[-1]
    table, pictures = np.array(samples)[busy], np.array(scored)[busy]
    print_row(f"MB, {len(table)} samples", "first", "last", "per 10,000")
    for name, values in zip(KINDS, table.T, strict=True):
        slope = np.polyfit(pictures, values, 1)[0] * 10_000
        print_row(name, values[0], values[-1], slope)


def memory(pid: int) -> list[float]:
    """Return the megabytes of a run's processes, by kind."""
    found = dict.fromkeys(KINDS, 0.0)
    for process in descendants(pid):
        try:
            line = command_line(process)
            found[kind(line, process == pid)] += proportional_set_size(process)
        except (OSError, StopIteration):
            # The process has ended.
            continue
    return list(found.values())


def kind(line: str, is_driver: bool) -> str:
    """Return the kind of a process of a run by its command line."""
    if is_driver:
        return "driver"
    return "model server" if "model-server" in line else "workers"


def descendants(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    try:
        return [pid, *(each for child in children(pid) for each in descendants(child))]
    except OSError:
        return [pid]


def command_line(pid: int) -> str:
    """Return the command line of a process."""
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")


def print_row(name: str, *figures: object) -> None:
    """Print a row."""
    texts = (f"{figure:,.2f}" if isinstance(figure, float) else str(figure) for figure in figures)
    sys.stdout.write(f"{name:28}" + "".join(f"{text:>14}" for text in texts) + "\n")


if __name__ == "__main__":
    main()
