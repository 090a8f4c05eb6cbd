"""Several processes of one job, as a launcher starts them: what a function returns, or raises, in each of them."""

import multiprocessing
import os
import socket
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import torch

from harness.process.ranks import process_group

SERVER = multiprocessing.get_context("forkserver")
"""Processes are forked from one that has imported torch already: a start takes a tenth of a second."""
SERVER.set_forkserver_preload(["torch", "timm", "harness.training.loop", "tests.harness.processes"])
PATIENCE = 120  # seconds


def free_port() -> int:
    """For the ranks of a job to meet at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def become(rank: int, world: int, port: int) -> None:
    """Makes a new process one of a job, as a launcher's environment does."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    # Of the data loader's workers; the server would pass on its own.
    multiprocessing.set_start_method("fork", force=True)
    torch.set_num_threads(1)


class Raised(NamedTuple):
    """An error of another process."""

    kind: str
    text: str


def together(world: int, function: Callable[..., Any], *arguments: object) -> list[Any]:
    """`function(ranks, *arguments)` in `world` new processes; by rank what it returns, a `Raised`, or an exit code."""
    port = free_port()
    pipes = [SERVER.Pipe(duplex=False) for _ in range(world)]
    processes = [
        SERVER.Process(target=_one, args=(pipes[rank][1], rank, world, port, function, arguments))
        for rank in range(world)
    ]
    for process, (_, send) in zip(processes, pipes, strict=True):
        process.start()
        send.close()
    answers = [_answer(receive) for receive, _ in pipes]
    for process in processes:
        process.join(5)
        if process.is_alive():
            process.kill()
        process.join(PATIENCE)
    # None: it died without a word
    return [
        process.exitcode if answer is None else answer[0] for process, answer in zip(processes, answers, strict=True)
    ]


def _answer(receive: Connection) -> tuple[Any] | None:
    try:
        return receive.recv() if receive.poll(PATIENCE) else None
    except EOFError:
        return None


def _one(
    send: Connection, rank: int, world: int, port: int, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    become(rank, world, port)
    answer: Any
    try:
        with process_group() as group:
            answer = function(group, *arguments)
            group.wait()
    except (Exception, KeyboardInterrupt) as problem:
        answer = Raised(type(problem).__name__, str(problem))
    send.send((answer,))
