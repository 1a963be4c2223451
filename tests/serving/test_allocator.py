"""Memory that is freed and needed again."""

import subprocess
import sys

MEASURE = """
import os
import resource
import numpy as np
from digit_serving import allocator

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(100):
        [np.ones(250_000, np.uint8) for _ in range(4)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

allocator.keep_freed()
faults()
before = resident()
np.ones(100 * 2**20, np.uint8)
print(faults(), resident() - before)
"""


def test_what_a_picture_took_is_kept_and_what_a_hundred_would_is_not() -> None:
    said = subprocess.check_output([sys.executable, "-c", MEASURE], text=True)
    faults, kept = map(int, said.split())
    assert faults < 100
    assert kept < 2 * 2**20
