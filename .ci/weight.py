"""Would a clone stay small? Run before each commit and by CI: ``python .ci/weight.py``.

No file of the index may exceed 4 MB (the limit of the deployed model), and the whole history, packed, 100 MB. Only the
standard library and git, so that it runs without the environment.
"""

import subprocess
import sys

FILE, HISTORY = 4_000_000, 100_000_000  # bytes
REMEDY = "let DVC cache it (an output without `cache: false` in dvc.yaml), make it smaller, or `git rm --cached` it"


def git(*command: str, text: str | None = None) -> list[str]:
    done = subprocess.run(["git", *command], input=text, check=True, capture_output=True, text=True)
    return done.stdout.split("\0") if "-z" in command else done.stdout.splitlines()


def index() -> dict[str, int]:
    """Path → bytes of every file of the next commit."""
    entries = [line.split("\t", 1) for line in git("ls-files", "--stage", "-z") if line]
    entries = [(head.split()[1], path) for head, path in entries if not head.startswith("160000")]
    sizes = git("cat-file", "--batch-check=%(objectsize)", text="\n".join(name for name, _ in entries) + "\n")
    return {path: int(size) for (_, path), size in zip(entries, sizes, strict=True)}


def history() -> dict[str, int]:
    """Object → bytes on disk of everything that a clone brings."""
    names = [line.split(" ", 1) for line in git("rev-list", "--objects", "HEAD")]
    paths = {name: path for name, *path in names}
    lines = git("cat-file", "--batch-check=%(objectname) %(objectsize:disk)", text="\n".join(paths) + "\n")
    sizes = dict(line.split() for line in lines)
    return {f"{' '.join(paths[name]) or 'commit'} ({name[:10]})": int(size) for name, size in sizes.items()}


def complaints() -> list[str]:
    files = [
        f"{path} has {size / 1e6:.1f} MB, {FILE / 1e6:.0f} at most in git; {REMEDY}"
        for path, size in index().items()
        if size > FILE
    ]
    every = history()
    total = sum(every.values())
    if total > HISTORY:
        largest = ", ".join(f"{name}: {every[name] / 1e6:.1f}" for name in sorted(every, key=lambda n: -every[n])[:5])
        files.append(f"the history has {total / 1e6:.0f} MB, {HISTORY / 1e6:.0f} at most; largest, in MB: {largest}")
    return files


if __name__ == "__main__":
    found = complaints()
    print("\n".join(found), end="\n" * bool(found), file=sys.stderr)
    sys.exit(bool(found))
