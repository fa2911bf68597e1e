"""One process or many: the same stage under ``python -m``, ``torchrun`` or ``fabric run``.

Each process takes its share of every batch; gradients are averaged, so that the step is the one a single process would
have taken with the whole batch. The first process alone validates for the record, logs and writes; the others end with
the training. Lightning Fabric does what is not ours: device, process group, gradient scaling, autocast.
Deliberately absent: synchronised batch norm (each process normalises by its own share; the first one's statistics are
kept), sharded weights, and starting processes by ourselves, which ``torchrun`` does better.
"""

import os
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from torch import Tensor, nn

from dermdistill.errors import UserError
from dermdistill.params import Devices


def rank() -> int:
    """Which of the processes this one is, over all machines; 0 if there is only one."""
    return int(os.environ.get("RANK", 0))


def count() -> int:
    """How many processes train together, over all machines."""
    return int(os.environ.get("WORLD_SIZE", 1))


def start(settings: Devices) -> Fabric:
    """This process's device, in touch with the other processes.

    Raises:
        UserError: the precision is one that this device does not have.
    """
    accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    if settings.precision == "16-mixed" and accelerator == "cpu":
        raise UserError("train.devices.precision 16-mixed needs a GPU; choose 32-true or bf16-mixed")
    assert settings.precision != "auto"  # ``precision.choose`` has replaced it
    local = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    fabric = Fabric(
        accelerator=accelerator,
        strategy="ddp" if count() > 1 else "auto",
        devices=local,
        num_nodes=count() // local,
        precision=settings.precision,
    )
    if "LT_CLI_USED" not in os.environ:  # `fabric run` has launched already, and refuses to do so again
        fabric.launch()
    return fabric


def shard(batch: Any) -> Any:
    """The part of a batch that falls to this process: anything that can be cut along its first axis."""
    size, rest = divmod(len(batch), count())
    if rest or not size:
        raise UserError(f"train.batch_size {len(batch)} cannot be shared by {count()} processes; make it a multiple")
    return batch[rank() * size : (rank() + 1) * size]


def agree(module: nn.Module) -> None:
    """Give every process the first one's batch-norm statistics; the weights are the same already."""
    if count() > 1:
        for buffer in module.buffers():
            dist.broadcast(buffer, 0)


def mean(fabric: Fabric, values: dict[str, float]) -> dict[str, float]:
    """Each value averaged over the processes."""
    if count() == 1:
        return values
    total: Any = fabric.all_reduce(torch.tensor(list(values.values()), dtype=torch.float64), reduce_op="mean")
    return dict(zip(values, total.tolist(), strict=True))


def gather(fabric: Fabric, mine: Tensor, total: int) -> Tensor:
    """Rows ``rank, rank + count, …`` of each process → all ``total`` rows in order, everywhere."""
    if count() == 1:
        return mine
    padded = torch.cat([mine, mine[:1].expand(-(-total // count()) - len(mine), -1)]).to(fabric.device)
    every = [torch.empty_like(padded) for _ in range(count())]
    dist.all_gather(every, padded)
    return torch.stack(every, 1).flatten(0, 1)[:total].cpu()


def end() -> None:
    """Only the first process goes on from here; what remains is to write."""
    if count() > 1:
        dist.barrier()
        dist.destroy_process_group()
    if rank():
        raise SystemExit(0)
