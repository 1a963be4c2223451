"""Fuzzing with Atheris: `python -m tests.fuzz SECONDS` fuzzes each target for SECONDS.

A failing input is written to the working directory as `crash-…`. Move it to `corpus/<target>`: test_corpus.py
runs every input in that folder.
"""

import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

CORPUS = Path(__file__).with_name("corpus")


def main(seconds: int) -> int:
    """Fuzz every target, each in its own process. Return the number of targets that failed."""
    from tests.fuzz.seeds import seeds

    failed = 0
    for name, files in seeds().items():
        print(f"Fuzzing {name} for {seconds} s", flush=True)  # noqa: T201
        with tempfile.TemporaryDirectory() as folder:
            for index, data in enumerate(files):
                (Path(folder) / str(index)).write_bytes(data)
            flags = [f"-max_total_time={seconds}", "-max_len=20000", "-timeout=60", "-rss_limit_mb=2048"]
            # With a constant seed every run tries the same inputs: a new failure has a cause in the code.
            flags.append("-seed=1")
            corpus = [str(path) for path in [CORPUS / name] if path.exists()]
            command = [sys.executable, "-m", "tests.fuzz", name, folder, *corpus, *flags, "-verbosity=0"]
            failed += subprocess.run([*command, "-print_final_stats=1"], check=False).returncode != 0
    return failed


def fuzz(name: str, flags: list[str]) -> None:
    """Fuzz one target with libFuzzer's flags. Does not return."""
    import atheris

    with atheris.instrument_imports(include=["digit_client", "digit_serving", "PIL", "werkzeug"]):
        from digit_serving.gateway.parsing import silence_library_warnings
        from tests.fuzz.targets import TARGETS
    warnings.simplefilter("error")
    silence_library_warnings()
    atheris.Setup([sys.argv[0], *flags], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    if sys.argv[1].isdigit():
        sys.exit(main(int(sys.argv[1])))
    fuzz(sys.argv[1], sys.argv[2:])
