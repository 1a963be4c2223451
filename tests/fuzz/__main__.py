"""Fuzzing with Atheris: `python -m tests.fuzz SECONDS` fuzzes each target for SECONDS.

A failing input is written to the working directory as `crash-…`. Move it to `corpus/<target>`: test_corpus.py
runs every input in that folder.
"""

import re
import subprocess
import sys
import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.fuzz.targets import TARGETS, load

CORPUS = Path(__file__).with_name("corpus")
SATURATED = ("response",)
"""Targets in which millions of inputs have found nothing new for long: a fifth of the time is enough."""


def main(seconds: int) -> int:
    """Fuzz every target, each in its own process, two at a time. Return the number of targets that failed."""
    from tests.fuzz.seeds import seeds

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as executor:
        runs = []
        for name, files in seeds().items():
            inputs = Path(folder) / name
            inputs.mkdir()
            for index, data in enumerate(files):
                (inputs / str(index)).write_bytes(data)
            time = seconds // 5 + 1 if name in SATURATED else seconds
            flags = [f"-max_total_time={time}", "-max_len=20000", "-timeout=60", "-rss_limit_mb=4096"]
            # With a constant seed every run tries the same inputs: a new failure has a cause in the code.
            flags += ["-seed=1", "-verbosity=0", "-print_final_stats=1"]
            corpus = [str(path) for path in [CORPUS / name] if path.exists()]
            command = [sys.executable, "-m", "tests.fuzz", name, str(inputs), *corpus, *flags]
            runs.append(executor.submit(_run, name, command))
        return sum(run.result() for run in runs)


def _run(name: str, command: list[str]) -> bool:
    """Run a target and print its output. Return True if it failed."""
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output = done.stdout.decode(errors="replace")
    # Decoders of damaged files write to standard error themselves.
    lines = output.splitlines() if done.returncode else re.findall(r"stat::number.*", output)
    print(f"Fuzzed {name}:", *lines, sep="\n", flush=True)  # noqa: T201
    return done.returncode != 0


def fuzz(name: str, flags: list[str]) -> None:
    """Fuzz one target with libFuzzer's flags. Does not return."""
    import atheris

    packages = ["digit_client", "digit_core", "digit_serving"]
    # Instrumenting takes seconds: of the libraries only those that read what a target gets.
    packages += {"pictures": ["PIL", "werkzeug"], "edge": ["uvicorn"]}.get(TARGETS[name], [])
    with atheris.instrument_imports(include=packages):
        from digit_serving.gateway.parsing import silence_library_warnings

        target = load(name)
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", category=DeprecationWarning, module="tensorflow")
    silence_library_warnings()
    atheris.Setup([sys.argv[0], *flags], target)
    atheris.Fuzz()


if __name__ == "__main__":
    if sys.argv[1].isdigit():
        sys.exit(main(int(sys.argv[1])))
    fuzz(sys.argv[1], sys.argv[2:])
