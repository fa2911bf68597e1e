"""What lets a killed training go on as if it had never been: one file per training, replaced atomically.

It lives in the ignored ``runtime/`` folder, because DVC deletes a stage's outputs before it reruns
the stage; an experiment in a copy of the repository uses the folder of the original, which outlives
the copy. Its name carries a hash of everything the training depends on, so a checkpoint of other
parameters, data or code is never picked up; behind the hash stand precision and processor, so that one of the same
training in another arithmetic is found, and refused rather than forgotten. Only tensors and plain values are in it. The
hash of the code stays in that name: in a saved model it would invalidate all that follows whenever a comment changes.
"""

import hashlib
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from dermdistill.core.files import atomic
from dermdistill.errors import UserError
from dermdistill.training import distributed

FOLDER = Path(os.environ.get("DVC_ROOT", ""), "runtime/checkpoints")
CODE = ("training/*.py", "distillation/*.py", "core/*.py")


def hash_inputs(*inputs: Any) -> str:
    """16 hex digits for what a training depends on beside its code: parameters and data, JSON-able."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]


def path_of(name: str, inputs: str, arithmetic: str = "") -> Path:
    """Where the training ``name`` with these hashed ``inputs`` keeps its checkpoint.

    The code, torch, and how many threads and processes compute are hashed too: other bits would follow from others.
    ``arithmetic`` (precision and processor) stands behind the hash, readable.
    """
    package = Path(__file__).resolve().parent.parent
    code = [path.read_text(encoding="utf-8") for pattern in CODE for path in sorted(package.glob(pattern))]
    surroundings = torch.__version__, torch.get_num_threads(), distributed.count()
    return FOLDER / f"{name}-{hash_inputs(inputs, code, *surroundings)}{arithmetic and '-' + arithmetic}.pt"


def refuse_other_arithmetic(path: Path, arithmetic: str) -> None:
    """See that no other precision or processor has begun the training whose checkpoint would be ``path``.

    Raises:
        UserError: it has. Going on would give weights that are neither's, beginning anew would forget what was trained.
    """
    training = path.stem.removesuffix(arithmetic)
    for other in sorted(path.parent.glob(f"{training}*{path.suffix}")):
        if other != path:
            raise UserError(
                f"this training was begun in {other.stem.removeprefix(training)} and cannot go on in {arithmetic}; set "
                f"train.devices.precision back and use such a processor, or delete {other} to begin anew"
            )


def hash_images(images: Any, rows: Any) -> str:
    """Hash of the images ``images[rows]``, block by block."""
    digest = hashlib.sha256(repr((images.shape[1:], len(rows))).encode())
    for start in range(0, len(rows), 256):
        digest.update(images[rows[start : start + 256]].tobytes())
    return digest.hexdigest()


def write(path: Path, state: dict[str, Any]) -> None:
    """The state, behind a SHA-256 of its bytes."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    with atomic(path) as temporary:
        temporary.write_bytes(hashlib.sha256(content).digest() + content)


def read(path: Path) -> dict[str, Any] | None:
    """The state, or None if there is no checkpoint.

    Raises:
        UserError: the file was cut short or altered since it was written.
    """
    if not path.exists():
        return None
    content = path.read_bytes()
    if hashlib.sha256(content[32:]).digest() != content[:32]:
        raise UserError(f"checkpoint {path} is damaged; delete it to train from the beginning")
    state: dict[str, Any] = torch.load(io.BytesIO(content[32:]), weights_only=True)
    return state


@contextmanager
def alone(name: str) -> Iterator[None]:
    """Hold the training's lock; a killed parent may have left a child that still trains.

    Raises:
        UserError: another process holds it.
    """
    if distributed.rank():  # the first of several processes holds it for all
        yield
        return
    path = Path("runtime/locks") / name
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise UserError(f"{name} is being trained by another process (lock {path}); wait for it or stop it") from None
    try:
        yield
    finally:
        lock.release()
