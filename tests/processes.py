"""Several processes that train together, as under `accelerate launch`, but forked from one that has imported it all."""

from __future__ import annotations

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

_IMPORTED = [
    "markovgen_app.training.mrf",
    "markovgen_app.training.scorer",
    "markovgen_app.training.super_resolution",
    "transformers.models.bert.modeling_bert",
    "transformers.models.auto.tokenization_auto",
]  # once, and not in each process anew, which is most of the time that small runs take


def together(count: int, reports: Path, function: Callable[..., None], *arguments: Any) -> None:
    """Call a module's function in `count` processes on CPUs that see each other; fails with what one of them raised."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_IMPORTED)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        context.Process(target=_run, args=(rank, count, port, reports / f"raised-{rank}", function, arguments))
        for rank in range(count)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(240)
        process.kill()
    raised = [path.read_text() for path in reports.glob("raised-*")]
    assert not raised and all(process.exitcode == 0 for process in processes), "\n".join(raised) or "killed"


def _run(rank: int, count: int, port: int, report: Path, function: Callable[..., None], arguments: Any) -> None:
    torch.set_num_threads(1)
    places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in places.items()}, MASTER_ADDR="127.0.0.1")
    try:
        function(*arguments)
    except BaseException:
        report.write_text(traceback.format_exc())
        raise
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def summed(folder: Path) -> None:
    """Train one weight w on the loss w · (number of the batch) for three steps; each process writes where it ends."""
    from markovgen_app.training.loop import LoopConfig, Trainer

    config = LoopConfig(name="sum", minutes=5, steps=3, warmup_steps=0, cooldown=0, clip=1e6, log_every=1, runs=folder)
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    trainer = Trainer(config, model, [torch.optim.SGD(model.parameters(), 1.0)])
    seen: list[int] = []

    def batches() -> Any:
        while True:
            yield trainer.stream

    def loss(batch: int, number: int) -> tuple[torch.Tensor, dict[str, Any]]:
        assert batch == number
        seen.append(batch)
        return model.weight.sum() * float(batch), {}

    trainer.fit(batches(), loss)
    (folder / f"ended-{trainer.accelerator.process_index}").write_text(f"{model.weight.item()} {seen}")
