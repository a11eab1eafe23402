"""A checkpoint of aMUSEd-256's shape with random weights: how long it loads and decodes, what memory it takes.

    markovgen benchmark --amused-size

Time and memory do not depend on what the weights are, so that nothing has to be downloaded. The checkpoint is written
to a temporary folder (3.5 GB, in $TMPDIR), measured, and deleted before a training step of each random field is: of the
field alone, without the checkpoint that its run keeps beside it. Every measurement has a process of its own, whose
largest memory is then that of what it did.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import torch
from diffusers.models.autoencoders.vq_model import VQModel
from diffusers.models.unets.uvit_2d import UVit2DModel
from safetensors import SafetensorError

from ..errors import UserError
from ..events import Result
from ..methods import NAMES
from ..models.mrf import MarkovRandomField
from ..pipeline import MarkovGenPipeline
from ..requests import GenerateRequest
from ..timing import synchronize
from ..training.mrf import Stage, undecided_loss
from ..training.states import States
from .memory import peak_memory_mb

Found = TypeVar("Found")

TRANSFORMER = {
    "hidden_size": 1024,
    "cond_embed_dim": 768,
    "encoder_hidden_size": 768,
    "vocab_size": 8256,
    "codebook_size": 8192,
    "in_channels": 768,
    "block_out_channels": 768,
    "num_hidden_layers": 22,
    "num_attention_heads": 16,
    "intermediate_size": 2816,
    "sample_size": 16,
}
"""The transformer of amused/amused-256, as far as it departs from diffusers' defaults or says what time is spent on."""
TOKENIZER = {"block_out_channels": [128, 256, 256, 512, 768], "latent_channels": 64, "layers_per_block": 2}
TEXT = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
_FIELDS = ("low-rank", "directional")


@dataclass(frozen=True)
class Shapes:
    """Sizes of the parts, `UVit2DModel`, `VQModel` and `CLIPTextConfig`, and sides of the grids to train fields on."""

    transformer: Mapping[str, Any] = field(default_factory=lambda: TRANSFORMER)
    tokenizer: Mapping[str, Any] = field(default_factory=lambda: TOKENIZER)
    text: Mapping[str, Any] = field(default_factory=lambda: TEXT)
    sides: tuple[int, ...] = (16, 32)


def write_checkpoint(folder: Path, shapes: Shapes) -> None:
    """Random weights in aMUSEd's format, with a directional field beside them; float32, as the published ones."""
    from diffusers import AmusedScheduler
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

    letters = [letter + ending for letter in "abcdefghijklmnopqrstuvwxyz" for ending in ("", "</w>")]
    pieces = [*letters, "<|startoftext|>", "<|endoftext|>"]
    words = CLIPTokenizer(vocab={piece: number for number, piece in enumerate(pieces)}, merges=[], model_max_length=77)
    words.save_pretrained(folder / "tokenizer")
    sizes = shapes.transformer
    ends = {"bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id}
    text = CLIPTextConfig(projection_dim=sizes["cond_embed_dim"], **shapes.text, **ends)
    CLIPTextModelWithProjection(text).save_pretrained(folder / "text_encoder")
    UVit2DModel(**sizes).save_pretrained(folder / "transformer")
    depth = len(shapes.tokenizer["block_out_channels"])
    VQModel(
        down_block_types=("DownEncoderBlock2D",) * depth,
        up_block_types=("UpDecoderBlock2D",) * depth,
        num_vq_embeddings=sizes["codebook_size"],
        mid_block_add_attention=False,
        lookup_from_codebook=True,
        **shapes.tokenizer,
    ).save_pretrained(folder / "vqvae")
    scheduler: Any = AmusedScheduler(mask_token_id=sizes["vocab_size"] - 1)
    scheduler.save_pretrained(folder / "scheduler")
    grid = (sizes["sample_size"],) * 2
    MarkovRandomField("directional", sizes["codebook_size"], grid).save_pretrained(folder / "mrf")
    parts = {
        "transformer": ["diffusers", "UVit2DModel"],
        "vqvae": ["diffusers", "VQModel"],
        "text_encoder": ["transformers", "CLIPTextModelWithProjection"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "AmusedScheduler"],
    }
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "AmusedPipeline", **parts}))


def use_checkpoint(folder: Path, device: str, dtype: torch.dtype, threads: int) -> dict[str, Any]:
    """Load a checkpoint and make one picture by every method.

    Returns:
        load_seconds, seconds of each method with the checkpoint's own settings, and what `peaks` says at the end.
    """
    torch.set_num_threads(threads)
    started = time.perf_counter()
    pipeline = MarkovGenPipeline.from_pretrained(folder, dtype=dtype).to(device)
    synchronize(pipeline.device)
    report: dict[str, Any] = {"load_seconds": time.perf_counter() - started, "methods": {}}
    _say("loaded")
    for method in NAMES:
        request = GenerateRequest.validated(prompt="a robot", method=method, seed=0, **pipeline.defaults)
        for event in pipeline.run(request):
            if isinstance(event, Result):
                report["methods"][method] = event.images[0].model_seconds
        _say(method)
    return {**report, **peaks(pipeline.device)}


def peaks(device: torch.device) -> dict[str, float]:
    """`peak_memory_mb`, and on CUDA as `peak_device_memory_mb` the most that tensors took of the GPU so far, in MB."""
    found = {"peak_memory_mb": peak_memory_mb()}
    if device.type == "cuda":
        found["peak_device_memory_mb"] = torch.cuda.max_memory_allocated(device) / 2**20
    return found


def training_step(
    parametrisation: str, codes: int, side: int, device: torch.device, threads: int, batch: int = 16
) -> dict[str, float]:
    """One step of a field's training: pseudo-likelihood of half of the tokens, its gradients, Adam.

    Returns:
        its seconds, and what `peaks` says after it.
    """
    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(0)
    positions = side * side
    model = MarkovRandomField(parametrisation, codes, (side, side)).to(device)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    targets = torch.randint(codes, (batch, positions), generator=generator)
    hidden = torch.rand(batch, positions, generator=generator) < 0.5
    states = States(targets.masked_fill(hidden, codes), torch.zeros(1), targets, torch.zeros(1)).to(device)
    logits = torch.randn(batch, positions, codes, generator=generator).to(device)
    stage = Stage.model_validate({"objective": "conditional"})
    seconds = []
    for _ in range(2):  # the first one makes Adam's state
        synchronize(device)
        started = time.perf_counter()
        undecided_loss(model, states, logits, stage).backward()
        optimizer.step()
        optimizer.zero_grad()
        synchronize(device)
        seconds.append(time.perf_counter() - started)
    return {"seconds": seconds[-1], **peaks(device)}


def training_steps(codes: int, sides: Iterable[int], device: torch.device) -> dict[str, dict[str, float]]:
    """What `training_step` returns of each kind of field on each grid: training_step_seconds → "directional_256", …"""
    found: dict[str, dict[str, float]] = {}
    for side in sides:
        for name in _FIELDS:
            step = _alone(training_step, name, codes, side, device, torch.get_num_threads())
            for figure, value in step.items():
                found.setdefault(f"training_step_{figure}", {})[f"{name}_{side * side}"] = value
            _say(f"training steps, {name}, {side * side} tokens")
    return found


def _alone(function: Callable[..., Found], *arguments: Any) -> Found:
    """What a function returns in a process of its own; UserError where that was killed."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        try:
            return process.submit(function, *arguments).result()
        except BrokenProcessPool as error:
            raise UserError(
                "The process that measures was killed, most likely for want of memory: close other programs, or"
                " measure on a machine with more."
            ) from error


def measure_checkpoint(device: torch.device, dtype: torch.dtype, shapes: Shapes | None = None) -> dict[str, Any]:
    """What `use_checkpoint` and `training_steps` report, the steps being of 16 pictures each.

    Raises:
        UserError: no room for the checkpoint, on the disk or in memory.
    """
    shapes = shapes or Shapes()
    with TemporaryDirectory(prefix="markovgen-amused-size-") as folder:
        try:
            write_checkpoint(Path(folder), shapes)
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"The checkpoint to measure cannot be written to {folder} ({error}): set TMPDIR to a folder with 4 GB"
                " of room."
            ) from error
        _say("checkpoint written")
        report = _alone(use_checkpoint, Path(folder), str(device), dtype, torch.get_num_threads())
    return {**report, **training_steps(shapes.transformer["codebook_size"], shapes.sides, device)}


def text_lines(report: Mapping[str, Any]) -> list[str]:
    """The report for people; one that was stored before memory of training steps was measured says so."""
    lines = [f"{'loaded after':<26}{report['load_seconds']:9.1f} s"]
    lines += [f"{name:<26}{seconds:9.1f} s a picture" for name, seconds in report["methods"].items()]
    counted = report.get("training_step_peak_memory_mb", {})
    on_device = report.get("training_step_peak_device_memory_mb", {})
    for name, seconds in report["training_step_seconds"].items():
        kind, tokens = name.rsplit("_", 1)
        memory = f", {_gigabytes(counted[name])} at most" if name in counted else ""
        memory += f", {_gigabytes(on_device[name])} of the GPU's" if name in on_device else ""
        lines.append(f"{f'{kind}, {tokens} tokens':<26}{seconds:9.2f} s a training step of 16 pictures{memory}")
    of = "of the checkpoint's use" if counted else "that of training steps not counted"
    if "peak_device_memory_mb" in report:
        of += f", {_gigabytes(report['peak_device_memory_mb'])} of the GPU's"
    return [*lines, f"{'peak memory':<26}{report['peak_memory_mb'] / 1024:9.1f} GB, {of}"]


def _gigabytes(megabytes: float) -> str:
    return f"{megabytes / 1024:.1f} GB"


def _say(what: str) -> None:
    """Progress, on standard error."""
    print(f"aMUSEd's size: {what}", file=sys.stderr, flush=True)
