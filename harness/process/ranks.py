"""Several processes that measure one cell together: one per device, started by torchrun or another launcher.

    torchrun --nproc-per-node 8 -m harness train flatten_swin_t --data /data/imagenet --device cuda

A launcher numbers the processes in RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT; without these there is
one process. Small agreements go over gloo on the CPU, so that they never wait for a GPU; gradients over nccl on GPUs.
"""

import os
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

from harness.process.environment import check_device

Value = TypeVar("Value")

VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_LOST_PEER = re.compile(r"gloo/transport/|Connection (closed|reset) by peer|NCCL error|nccl\w*Error")
"""gloo raises plain RuntimeErrors, and so does nccl in places; newer torch raises dist.DistError for most."""
TIMEOUT = timedelta(minutes=30)  # meanwhile, one rank may write a checkpoint, or read a large archive's index
SILENCE = 5.0
"""Seconds of waiting for other processes after which this is said: some start later, and some never do."""

_SHOWN = 8


@dataclass(frozen=True)
class Ranks:
    """The processes of this job, and which one this is. With one process, all of this costs nothing."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0

    @property
    def first(self) -> bool:
        """Whether this is rank 0, which writes records and checkpoints."""
        return self.rank == 0

    def device(self, kind: str) -> torch.device:
        """Return this process's device. Slurm and others may show each process only its own GPU, then number 0."""
        if kind != "cuda":
            return torch.device(kind)
        return torch.device("cuda", self.local_rank % max(1, torch.cuda.device_count()))

    def any(self, flag: bool) -> bool:
        """Return whether `flag` is set in any process; the same answer in all."""
        if self.world == 1:
            return flag
        flags = torch.tensor([int(flag)])
        dist.all_reduce(flags, dist.ReduceOp.MAX)
        return bool(flags.item())

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum the tensors of all processes, in place and on the tensor's device, and return the sum."""
        if self.world > 1:
            dist.all_reduce(tensor)
        return tensor

    def agreed(self, value: Callable[[], Value]) -> Value:
        """Return what `value` returns on rank 0, on every rank; a ValueError there is raised on all.

        Any other error ends rank 0, and with it the job.
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
        """Return the values of all processes, by rank, in every process."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.world > 1:
            dist.barrier()


def lost_peer(problem: Exception) -> bool:
    """Return whether an error only says that another process of the job is gone, or does not answer."""
    return isinstance(problem, dist.DistError) or (
        isinstance(problem, RuntimeError) and _LOST_PEER.search(str(problem)) is not None
    )


def ranks() -> Ranks:
    """Return the processes of this job, as `process_group` found them; one process without a group."""
    if not dist.is_initialized():
        return Ranks()
    return Ranks(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", "0")))


@contextmanager
def process_group() -> Iterator[Ranks]:
    """Join the processes that the launcher's environment describes, until the end of the block.

    Waiting for them is said on standard error after a few seconds: where, and which of them are missing.

    Raises ValueError if that environment is incomplete or impossible, or if the others do not come.
    """
    world = _number("WORLD_SIZE", default="1")
    if world < 1:
        raise ValueError("the environment variable WORLD_SIZE is 0; it takes a number of processes")
    if world == 1:
        yield Ranks()
        return
    missing = [name for name in VARIABLES if name not in os.environ]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise ValueError(
            f"WORLD_SIZE says that there are {world} processes, but {' and '.join(missing)} {verb} missing: "
            "start them with torchrun --nproc-per-node N -m harness ..."
        )
    rank, local_rank, port = _number("RANK"), _number("LOCAL_RANK", default="0"), _number("MASTER_PORT")
    if rank >= world:
        raise ValueError(f"RANK is {rank}; it must be from 0 to WORLD_SIZE - 1 = {world - 1}")
    if not 0 < port < 2**16:
        raise ValueError(f"MASTER_PORT is {port}; it must be from 1 to {2**16 - 1}")
    store = _met(rank, world, os.environ["MASTER_ADDR"], port)
    backend = "gloo"
    if torch.cuda.is_available():
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(local_rank % torch.cuda.device_count())
    dist.init_process_group(backend, timeout=TIMEOUT, store=store, rank=rank, world_size=world)
    try:
        yield ranks()
    finally:
        dist.destroy_process_group()


def _met(rank: int, world: int, host: str, port: int) -> Store:
    """Return the store by which the processes know each other, once all of them are there."""
    start = time.monotonic()
    where = f"{host}:{port}"
    said = False

    def wait(for_whom: str) -> None:
        nonlocal said
        waited = time.monotonic() - start
        if waited > TIMEOUT.total_seconds():
            raise ValueError(f"after {TIMEOUT} this process ({rank} of {world}) still waits at {where} for {for_whom}")
        if waited > SILENCE and not said:
            said = True
            print(
                f"attention-bench: process {rank} of {world} waits at {where} for {for_whom}, as WORLD_SIZE, RANK, "
                "MASTER_ADDR and MASTER_PORT in its environment say; for a single process, unset WORLD_SIZE",
                file=sys.stderr,
                flush=True,
            )
        time.sleep(0.05)

    # Under torchrun the store is its own, as the address is.
    hosts = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    if hosts:
        try:
            # It listens at every address, and need not know its own: in a pod, that may have no name before it is up.
            store = TCPStore("localhost", port, is_master=True, timeout=TIMEOUT, wait_for_workers=False)
        except dist.DistError as problem:
            raise ValueError(f"process 0 cannot listen at {where} (MASTER_PORT): {_why(problem)}") from None
    else:
        while not _listens(host, port):
            wait("process 0")
        store = TCPStore(host, port, timeout=TIMEOUT, wait_for_workers=False)
    # torchrun starts processes anew at the same store, if one has failed.
    group = PrefixStore(f"attention-bench/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    group.set(f"here/{rank}", "")
    while missing := [other for other in range(world) if not group.check([f"here/{other}"])]:
        ranks_missing = ", ".join(map(str, missing[:_SHOWN])) + (", ..." if len(missing) > _SHOWN else "")
        wait(f"{len(missing)} of {world} processes (RANK {ranks_missing})")
    return group


def _listens(host: str, port: int) -> bool:
    """Whether anything listens there yet; a name may be unknown until its machine is up."""
    try:
        socket.create_connection((host, port), timeout=SILENCE).close()
    except OSError:
        return False
    return True


def _why(problem: Exception) -> str:
    return "another program does" if "EADDRINUSE" in str(problem) else str(problem).splitlines()[0]


def _number(variable: str, default: str | None = None) -> int:
    text = os.environ.get(variable, default)
    assert text is not None, variable
    if not (text.isascii() and text.isdecimal()):
        raise ValueError(f"the environment variable {variable} is {text!r}; it takes a number")
    return int(text)


def usable_device(device: str, group: Ranks) -> torch.device:
    """Return this process's device. Raises ValueError where the machine has none of this kind."""
    check_device(device)
    return group.device(device)
