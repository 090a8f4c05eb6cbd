"""Several processes that measure one cell together: one a device, started by torchrun or another launcher.

    torchrun --nproc-per-node 8 -m harness train flatten_swin_t --data /data/imagenet --device cuda

A launcher says who is who in RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT; without these there is one
process. Small agreements travel over gloo on the CPU, so that they never wait for a GPU; gradients over nccl on GPUs.
"""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from harness.process.environment import check_device

Value = TypeVar("Value")

VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_LOST_PEER = re.compile(r"gloo/transport/|Connection (closed|reset) by peer|NCCL error|nccl\w*Error")
"""gloo raises plain RuntimeErrors, and so does nccl in places; newer torch has dist.DistError for most."""
TIMEOUT = timedelta(minutes=30)  # one rank may write a checkpoint, or read a large archive's index, meanwhile


@dataclass(frozen=True)
class Ranks:
    """The processes of this job, and which one this is. With one process all of this costs nothing."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0

    @property
    def first(self) -> bool:
        """Whether this process speaks for all: it writes records and checkpoints."""
        return self.rank == 0

    def device(self, kind: str) -> torch.device:
        """This process's device. Slurm and others may show each process its own GPU only, which then is number 0."""
        if kind != "cuda":
            return torch.device(kind)
        return torch.device("cuda", self.local_rank % max(1, torch.cuda.device_count()))

    def any(self, flag: bool) -> bool:
        """Whether `flag` is set in any process; the same answer in all."""
        if self.world == 1:
            return flag
        flags = torch.tensor([int(flag)])
        dist.all_reduce(flags, dist.ReduceOp.MAX)
        return bool(flags.item())

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of the tensors of all processes, in place, on the tensor's device."""
        if self.world > 1:
            dist.all_reduce(tensor)
        return tensor

    def agreed(self, value: Callable[[], Value]) -> Value:
        """What `value` returns in the first process, in every process; a ValueError there is raised in all.

        Other errors end the first process, and with it the job.
        """
        if self.world == 1:
            return value()
        answer: list[Any] = [None, None]
        if self.first:
            try:
                answer = [value(), None]
            except ValueError as problem:
                answer = [None, str(problem)]
        dist.broadcast_object_list(answer, src=0)
        if answer[1] is not None:
            raise ValueError(answer[1])
        return answer[0]

    def gathered(self, value: Value) -> list[Value]:
        """The values of all processes, by rank, in every process."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Until every process is here."""
        if self.world > 1:
            dist.barrier()


def lost_peer(problem: Exception) -> bool:
    """Whether an error only says that another process of the job is gone, or does not answer."""
    return isinstance(problem, dist.DistError) or (
        isinstance(problem, RuntimeError) and _LOST_PEER.search(str(problem)) is not None
    )


def ranks() -> Ranks:
    """The processes of this job, as `process_group` found them; one where there is none."""
    if not dist.is_initialized():
        return Ranks()
    return Ranks(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", "0")))


@contextmanager
def process_group() -> Iterator[Ranks]:
    """Joins the processes that the launcher's environment speaks of, until the end of the block.

    Raises ValueError if that environment is incomplete or cannot be true.
    """
    world = _number("WORLD_SIZE", default="1")
    if world < 1:
        raise ValueError("the environment variable WORLD_SIZE is 0; it takes a number of processes")
    if world == 1:
        yield Ranks()
        return
    missing = [name for name in VARIABLES if name not in os.environ]
    if missing:
        raise ValueError(
            f"WORLD_SIZE says that there are {world} processes, but there is no {' and no '.join(missing)}: "
            "start them with torchrun --nproc-per-node N -m harness ..."
        )
    rank, local_rank, port = _number("RANK"), _number("LOCAL_RANK", default="0"), _number("MASTER_PORT")
    if rank >= world:
        raise ValueError(f"RANK is {rank}, which must lie between 0 and WORLD_SIZE - 1 = {world - 1}")
    if not 0 < port < 2**16:
        raise ValueError(f"MASTER_PORT is {port}, which must lie between 1 and {2**16 - 1}")
    backend = "gloo"
    if torch.cuda.is_available():
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(local_rank % torch.cuda.device_count())
    dist.init_process_group(backend, timeout=TIMEOUT)
    try:
        yield ranks()
    finally:
        dist.destroy_process_group()


def _number(variable: str, default: str | None = None) -> int:
    text = os.environ.get(variable, default)
    assert text is not None, variable
    if not (text.isascii() and text.isdecimal()):
        raise ValueError(f"the environment variable {variable} is {text!r}; it takes a number")
    return int(text)


def usable_device(device: str, group: Ranks) -> torch.device:
    """This process's device. Raises ValueError where it is not there."""
    check_device(device)
    return group.device(device)
