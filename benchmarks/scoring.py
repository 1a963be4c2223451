"""Speed of `digits score` on this machine: python -m benchmarks.scoring [--count N] [--picture FILE].

Needs published models in models; see `digits train`.
"""

import argparse
import os
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.service import DIGITS, print_row
from digit_core.images import to_png
from digit_training.data import SAMPLE


def main() -> None:
    """Print what `digits score` says of its speed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000, help="number of pictures")
    parser.add_argument("--picture", type=Path, help="a file to score again and again, in place of digits")
    arguments = parser.parse_args()
    if arguments.picture:
        files = [arguments.picture.read_bytes()]
    else:
        with np.load(SAMPLE) as sample:
            files = [to_png(digit) for digit in sample["x_train"]]
    print_row("cores, load average", len(os.sched_getaffinity(0)), os.getloadavg()[0])
    with TemporaryDirectory() as folder:
        for number in range(arguments.count):
            path = Path(folder, "in", f"{number // 1000:04}", f"{number:07}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(files[number % len(files)])
        command = [*DIGITS, "score", f"{folder}/in", "--output", f"{folder}/out", "--batch", "1024"]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
