"""`python -m tests.fuzz SECONDS`: fuzz each target for so long with Atheris.

What one fails on is left here as the file `crash-…`; kept in `corpus/<target>`, it is tested from then on.
"""

import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

CORPUS = Path(__file__).with_name("corpus")


def main(seconds: int) -> int:
    """Fuzz every target, each in a process of its own. Returns how many failed."""
    from tests.fuzz.seeds import seeds

    failed = 0
    for name, files in seeds().items():
        print(f"Fuzzing {name} for {seconds} s", flush=True)  # noqa: T201
        with tempfile.TemporaryDirectory() as folder:
            for index, data in enumerate(files):
                (Path(folder) / str(index)).write_bytes(data)
            flags = [f"-max_total_time={seconds}", "-max_len=20000", "-timeout=60", "-rss_limit_mb=2048"]
            # The same inputs every time: a change must not fail for what another left to chance.
            flags.append("-seed=1")
            kept = [str(path) for path in [CORPUS / name] if path.exists()]
            command = [sys.executable, "-m", "tests.fuzz", name, folder, *kept, *flags, "-verbosity=0"]
            failed += subprocess.run([*command, "-print_final_stats=1"], check=False).returncode != 0
    return failed


def fuzz(name: str, flags: list[str]) -> None:
    """Fuzz one target, with libFuzzer's flags; does not return."""
    import atheris

    with atheris.instrument_imports(include=["digit_client", "digit_serving", "PIL", "werkzeug"]):
        from digit_serving.gateway.request_parsing import ignore_doubts
        from tests.fuzz.targets import TARGETS
    warnings.simplefilter("error")
    ignore_doubts()
    atheris.Setup([sys.argv[0], *flags], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    if sys.argv[1].isdigit():
        sys.exit(main(int(sys.argv[1])))
    fuzz(sys.argv[1], sys.argv[2:])
