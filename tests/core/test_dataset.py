"""Prepared images in memory: plain arrays come out, and only part of a large file stays in this process."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import environment
from numpy.lib.format import open_memmap

from dermdistill.core.dataset import load_images

READ = """
import re, sys
import numpy as np
from dermdistill.core import dataset
def peak():  # of this process alone: ru_maxrss would begin with that of the one that started it
    return int(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1]) * 1024
images = dataset.load_images(sys.argv[1])
before = peak()
for start in range(0, len(images), 32):
    assert not images[np.arange(start, min(start + 32, len(images)))].any()
    assert images[start].shape == images.shape[1:]
print(peak() - before)
"""


def test_indexing_gives_plain_arrays_of_the_file(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 4, 5, 3), np.uint8)
    np.save(tmp_path / "images.npy", images)
    mapped = load_images(tmp_path)
    assert mapped.shape == images.shape and len(mapped) == 6
    for key in (2, slice(1, 4), np.array([5, 0, 5]), (slice(None), 1)):
        assert type(mapped[key]) is np.ndarray and np.array_equal(mapped[key], images[key])
    with pytest.raises(ValueError, match="read-only"):
        mapped[2][0, 0, 0] = 1


def test_a_large_file_stays_on_disk(tmp_path: Path) -> None:
    """3.3 GB as at 384 × 288, all zeros and so without blocks on disk. On Linux."""
    open_memmap(tmp_path / "images.npy", mode="w+", dtype=np.uint8, shape=(10_015, 288, 384, 3))
    command = [sys.executable, "-c", READ, str(tmp_path)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    assert 0.5e9 < int(done.stdout) < 1.3e9
