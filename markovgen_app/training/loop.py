"""One resumable training loop for every stage, on one device or, started by `accelerate launch`, on many.

A stage hands over its module, its optimizers, a stream of batches and a loss; the loop does the rest: learning-rate
schedule (warm-up, constant, linear cool-down over the last fifth), gradient clipping, an exponential moving average of
the weights, logging, and a checkpoint with optimiser state every few minutes, when told to stop (SIGTERM, Ctrl+C),
and at the end. Budgets are minutes of training, not steps, so that one configuration serves two CPU cores and a GPU.

Several processes hold the same weights: each takes its own batches, gradients are averaged, and the first one writes.

Checkpoints live in `runs/NAME/state.safetensors` (see `run_state`); finished weights are exported by the stages.
"""

from __future__ import annotations

import copy
import functools
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar

import torch
import yaml
from accelerate import Accelerator
from diffusers.models.modeling_utils import ModelMixin
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from ..errors import UserError
from ..loading import ModelT, load_model, own_config
from .run_state import load_state, save_state


class LoopConfig(BaseModel):
    """What every stage's configuration has in common."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(description="the run's name; its folder is runs/NAME")
    minutes: float = Field(gt=0, description="training time in all, resumed runs included")
    steps: int | None = Field(None, ge=1, description="stop after this many steps, if that comes first")
    batch_size: int = Field(16, ge=1)
    seed: int = Field(0, ge=0)
    warmup_steps: int = Field(200, ge=0)
    cooldown: float = Field(0.2, ge=0, le=1, description="share of the time over which the learning rate falls to zero")
    clip: float = Field(1.0, gt=0, description="largest gradient norm")
    ema: float = Field(0.999, ge=0, lt=1, description="decay of the moving average of the weights")
    mixed_precision: Literal["no", "bf16"] = Field("no", description="bf16 on a GPU; fp16 would take a scaled loss")
    compile: bool = False
    workers: int = Field(0, ge=0, description="processes that render scenes ahead")
    log_every: int = Field(50, ge=1)
    checkpoint_minutes: float = Field(4, gt=0)
    runs: Path = Path("runs")

    @property
    def folder(self) -> Path:
        return self.runs / self.name


ConfigT = TypeVar("ConfigT", bound=LoopConfig)
P = ParamSpec("P")
R = TypeVar("R")


def without_denormals(train: Callable[P, R]) -> Callable[P, R]:
    """Run a stage with denormals flushed to zero.

    Gradients of saturated activations underflow to denormals, which CPUs multiply much more slowly. The
    flag is each thread's own and inherited: it is set before PyTorch starts its workers, around a whole stage.
    """

    @functools.wraps(train)
    def flushed(*args: P.args, **options: P.kwargs) -> R:
        torch.set_flush_denormal(True)
        try:
            return train(*args, **options)
        finally:
            torch.set_flush_denormal(False)

    return flushed


def read_config(path: Path, kind: type[ConfigT], **overrides: Any) -> ConfigT:
    """A stage's configuration from a YAML file, with overrides; None leaves a field alone.

    Raises:
        UserError: no such file, no YAML, or a field that is wrong or unknown.
    """
    try:
        fields = yaml.safe_load(Path(path).read_text()) or {}
        return kind.model_validate({**fields, **{name: each for name, each in overrides.items() if each is not None}})
    except FileNotFoundError:
        raise UserError(
            f"There is no configuration file {path}: the ones that come with the project are in configs/."
        ) from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {str(error).splitlines()[0]}.") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f"{place}." for place in first["loc"])[:-1]
        told = first["msg"].removeprefix("Value error, ")
        raise UserError(f"{path}: {where + ': ' if where else ''}{told}.") from None


def learning_rate_factor(step: int, progress: float, warmup_steps: int, cooldown: float) -> float:
    """Warm-up over steps, constant, then linear to zero over the last `cooldown` share of `progress` (0 … 1)."""
    warm = min(1.0, (step + 1) / max(1, warmup_steps))
    cool = min(1.0, (1 - progress) / cooldown) if cooldown else 1.0
    return warm * max(0.0, cool)


@torch.no_grad()
def update_average(average: nn.Module, module: nn.Module, decay: float, step: int) -> None:
    """average ← d·average + (1 − d)·module, with d growing to `decay` over the first steps."""
    weight = 1 - min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(average.parameters()), list(module.parameters()), weight)


def copy_half(model: ModelMixin, folder: Path) -> None:
    """Save a model's weights as fp16 safetensors in shards under 10 MB; the model itself stays as it is."""
    copy.deepcopy(model).cpu().half().save_pretrained(folder, max_shard_size="9MB")


def start_from(kind: type[ModelT], folder: Path, config: LoopConfig | None, **required: Any) -> ModelT:
    """A model exported by an earlier run, in float32, to be trained on with a fresh optimiser.

    The sizes are those in the folder; where the configuration file names one as well, it must be the same.

    Args:
        kind: the model's class.
        folder: holds its config.json and its weights.
        config: the run's settings; fields that are called as the model's are compared if the file sets them. None
            where the model need not have the run's sizes.
        required: further values of the model's config that must be met.

    Raises:
        UserError: no such model, a damaged one, or one of other sizes.
    """
    absent = f"There is no exported model in {folder}: correct the configuration file, or export one there."
    model = load_model(kind, folder, absent)
    named = {name: getattr(config, name) for name in config.model_fields_set & set(model.config)} if config else {}
    for name, wanted in (named | required).items():
        wanted, found = (list(value) if isinstance(value, tuple) else value for value in (wanted, model.config[name]))
        if wanted != found:
            raise UserError(f"The model in {folder} has {name} = {found}, this run {wanted}: start from another model.")
    return model


def grown(model: ModelT, **changes: Any) -> ModelT:
    """A model of the same kind with other sizes in its config, and the weights that the given one has.

    What is new stays as it is made, so whether it changes anything yet is for the caller to say.
    """
    larger = type(model)(**own_config(model) | changes)
    larger.load_state_dict(model.state_dict(), strict=False)
    return larger


class Trainer:
    """State of one run: module, average, optimizers, step, minutes; `fit` trains, `save` and `resume` keep it.

    Args:
        config: the run's settings.
        module: what is trained; on the accelerator's device afterwards.
        optimizers: each with its own base learning rate.
    """

    def __init__(self, config: LoopConfig, module: nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        self.config = config
        self.accelerator = Accelerator(cpu=not torch.accelerator.is_available(), mixed_precision=config.mixed_precision)
        self.device = self.accelerator.device
        self.module = module.to(self.device)
        self.average = copy.deepcopy(self.module).eval().requires_grad_(False)
        self.optimizers = list(optimizers)
        self.base_rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in self.optimizers]
        self.step = 0
        self.minutes = 0.0
        self._stopped = self._ending = False

    @property
    def path(self) -> Path:
        return self.config.folder / "state.safetensors"

    @property
    def processes(self) -> int:
        """How many train together."""
        return self.accelerator.num_processes

    @property
    def stream(self) -> int:
        """Number of this process's next batch, of those of all processes; they are `processes` apart."""
        return self.step * self.processes + self.accelerator.process_index

    def _share(self, parameters: Sequence[Tensor]) -> None:
        """Give all processes the mean of their gradients."""
        if self.processes > 1:
            for parameter in parameters:
                if parameter.grad is not None:
                    torch.distributed.all_reduce(parameter.grad)
                    parameter.grad /= self.processes

    def _agree(self) -> None:
        """Let all processes count the longest time, and end together when one is told to stop."""
        self._ending = self._stopped
        if self.processes > 1:
            told = torch.tensor([self.minutes, float(self._stopped)], device=self.device)
            torch.distributed.all_reduce(told, torch.distributed.ReduceOp.MAX)
            self.minutes, self._ending = float(told[0]), bool(told[1])

    def save(self) -> None:
        """Write the checkpoint; the old one stays until the new one is complete.

        Raises:
            UserError: the disk is full, or nothing may be written there.
        """
        if self.accelerator.is_main_process:
            save_state(self.path, self.module, self.average, self.optimizers, self.step, self.minutes)

    def resume(self) -> bool:
        """Continue from the checkpoint; False where there is none.

        Raises:
            UserError: it is damaged, or of a run of other sizes.
        """
        if not self.path.is_file():
            return False
        self.step, self.minutes = load_state(self.path, self.module, self.average, self.optimizers)
        return True

    def log(self, values: dict[str, Any]) -> None:
        """One line of JSON into runs/NAME/log.jsonl and onto standard error."""
        if not self.accelerator.is_main_process:
            return
        line = json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in values.items()})
        self.config.folder.mkdir(parents=True, exist_ok=True)
        with (self.config.folder / "log.jsonl").open("a") as file:
            file.write(line + "\n")
        print(line, file=sys.stderr, flush=True)

    def fit(
        self,
        batches: Iterator[Any],
        loss: Callable[[Any, int], tuple[Tensor, dict[str, Tensor | float]]],
        on_checkpoint: Callable[[], None] | None = None,
    ) -> None:
        """Train until the minutes are used up.

        Args:
            batches: an endless stream, already at the right place when the run is resumed (see `stream`).
            loss: (batch, its number of those of all processes) → the scalar to minimise and what to log.
            on_checkpoint: called after every checkpoint, to export weights or draw samples.
        """
        config = self.config
        parameters = [p for p in self.module.parameters() if p.requires_grad]
        previous = {number: signal.signal(number, self._on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        last = saved = logged = time.perf_counter()
        seen = 0
        try:
            while self.minutes < config.minutes and self.step != config.steps and not self._ending:
                factor = learning_rate_factor(
                    self.step, self.minutes / config.minutes, config.warmup_steps, config.cooldown
                )
                for optimizer, rates in zip(self.optimizers, self.base_rates, strict=True):
                    for group, rate in zip(optimizer.param_groups, rates, strict=True):
                        group["lr"] = rate * factor
                batch = next(batches)
                with self.accelerator.autocast():
                    value, shown = loss(batch, self.stream)
                value.backward()
                self._share(parameters)
                norm = nn.utils.clip_grad_norm_(parameters, config.clip)
                for optimizer in self.optimizers:
                    optimizer.step()
                    optimizer.zero_grad(set_to_none=True)
                update_average(self.average, self.module, config.ema, self.step)
                self.step += 1
                seen += config.batch_size * self.processes
                now = time.perf_counter()
                self.minutes += (now - last) / 60
                last = now
                self._agree()
                if self.step % config.log_every == 0:
                    details = {k: float(v) for k, v in shown.items()}
                    rate = seen / (now - logged)
                    self.log(
                        {"step": self.step, "minutes": self.minutes, "per_second": rate, "norm": float(norm), **details}
                    )
                    logged, seen = now, 0
                if now - saved > config.checkpoint_minutes * 60:
                    self.save()
                    if on_checkpoint and self.accelerator.is_main_process:
                        on_checkpoint()
                    saved = last = time.perf_counter()
            self.save()
            if on_checkpoint and self.accelerator.is_main_process:
                on_checkpoint()
            self.accelerator.wait_for_everyone()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _on_signal(self, *_: object) -> None:
        """Stop after this step; a second Ctrl+C ends at once."""
        self._stopped = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
