"""The one decoding loop: from a partly masked grid of tokens to a full one, in parallel steps.

MaskGIT (Chang et al., arXiv 2202.04200, section 3.2), as Muse (arXiv 2301.00704, section 2.8) uses it. Each step
  1. asks the model for the logits of every position,
  2. draws a token for every undecided position,
  3. commits the most confident ones (or the next ones of a fixed order), as many as the schedule says.
The caller decides what is masked at the start (all: generate; some: inpaint, outpaint, edit), what the model sees
beside the tokens (the closure `tokens_to_logits`), and what happens at the exit (`inference`). Methods are presets of
the settings.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from markovgen_app.decoding.draws import draw_tokens, gumbel_noise, lowest
from markovgen_app.decoding.finalise import FINALISE, Inference, decimate, evenly, refined_logits
from markovgen_app.decoding.order import ORDERS, order_scores
from markovgen_app.decoding.schedule import SCHEDULES, mask_counts
from markovgen_app.errors import UserError

TokensToLogits = Callable[[Tensor, int], Tensor]
"""(tokens (B, n), step from 1) -> logits (B, n, V), V without the mask token."""

METHODS = ("full", "early-exit", "markovgen", "rescheduled", "halton")
CONFIDENCE = "confidence"


@dataclass(frozen=True)
class DecodingSettings:
    """What the loop can be told.

    Attributes:
        steps: planned steps n; schedule, guidance ramp and noise annealing span all of them.
        exit_step: stop after this step k ≤ n, where undecided tokens take their current predictions; None: after n.
        schedule: a name in `schedule.SCHEDULES`.
        guidance_scale: 1 is no guidance (see `guidance.guide`).
        guidance_ramp: ramp the guidance linearly as Muse does, instead of keeping it constant.
        temperature: of the token draw; 0 takes the most likely token.
        annealing: share of the temperature that the draws lose, evenly, from step 1 to step n. The first draws decide
            what is seen where, the last ones details, in which chance is seen as dirt.
        exit_temperature: the same for the draws at `exit_step`; None: that step's own. What is drawn there is not
            looked at again by the transformer, which is why less chance can be better.
        choice_temperature: of the Gumbel noise on the log confidence, annealed linearly to 0 at step n. Not used by
            fixed orders. MaskGIT's is 4.5.
        top_k: draw among the k most likely tokens only; None: among all.
        order: "confidence" or a name in `order.ORDERS`. The defaults of this, of the temperature and of its annealing
            suit the embedded weights.
        finalise: how the tokens left at `exit_step` are taken, with a random field or without one:
            sample   drawn independently at `exit_temperature`
            argmax   the likeliest
            perturb  the likeliest once Gumbel noise · `exit_temperature` is on the logits, before the field sees them
                     (perturb and MAP, Papandreou and Yuille, ICCV 2011): the noise that decides a token is heard by
                     its neighbours too, so they agree on one draw. The same as sample without a field.
            decimate a few at a time, as in the steps that are left, but with the field in place of the transformer
                     (see `finalise.decimate`). The same as sample without a field.
        mrf_iterations: how often the field is asked in a decimation, evenly over the steps left; None: once for each
            of them. In other inference, `inference` knows.

    Raises:
        UserError: if a value is out of its range.
    """

    steps: int = 24
    exit_step: int | None = None
    schedule: str = "cosine"
    guidance_scale: float = 2.0
    guidance_ramp: bool = True
    temperature: float = 0.75
    annealing: float = 0.6
    choice_temperature: float = 1.0
    top_k: int | None = None
    order: str = "halton"
    finalise: str = "sample"
    mrf_iterations: int | None = None
    exit_temperature: float | None = None

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UserError(f"Steps must be 1 or more, not {self.steps}.")
        if self.exit_step is not None and not 1 <= self.exit_step <= self.steps:
            raise UserError(f"The exit step must be between 1 and the {self.steps} steps, not {self.exit_step}.")
        if self.mrf_iterations is not None and self.mrf_iterations < 1:
            raise UserError(f"Mean-field iterations must be 1 or more, not {self.mrf_iterations}.")
        if self.top_k is not None and self.top_k < 1:
            raise UserError(f"Top-k must be 1 or more (or empty), not {self.top_k}.")
        for name in ("guidance_scale", "temperature", "choice_temperature", "exit_temperature"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise UserError(f"{name.replace('_', ' ').capitalize()} must be 0 or more, not {value}.")
        if not 0 <= self.annealing <= 1:
            raise UserError(f"Annealing must be between 0 and 1, not {self.annealing}.")
        if self.schedule not in SCHEDULES:
            raise UserError(f"No schedule is called {self.schedule!r}: choose one of {', '.join(SCHEDULES)}.")
        if self.order != CONFIDENCE and self.order not in ORDERS:
            raise UserError(f"No order is called {self.order!r}: choose {CONFIDENCE} or one of {', '.join(ORDERS)}.")
        if self.finalise not in FINALISE:
            raise UserError(f"Tokens cannot be finalised by {self.finalise!r}: choose one of {', '.join(FINALISE)}.")

    def temperature_at(self, step: int) -> float:
        """Of the draws at a step from 1 to n: at the exit its own, elsewhere what `annealing` has left."""
        if step == self.exit_step and self.exit_temperature is not None:
            return self.exit_temperature
        return self.temperature * (1 - self.annealing * (step - 1) / max(1, self.steps - 1))

    def fixed_scores(self, grid: tuple[int, int], device: torch.device) -> Tensor | None:
        """(n,) what a fixed order gives every place of a grid, the higher the earlier decided; None by confidence."""
        return None if self.order == CONFIDENCE else order_scores(self.order, grid).to(device)

    def confidence_scores(self, log_probability: Tensor, noise: Tensor, step: int) -> Tensor:
        """(M,) of draws with `log_probability` (M,) and Gumbel `noise` (M,): the highest are committed by that step."""
        return log_probability + self.choice_temperature * (1 - step / self.steps) * noise


@dataclass(frozen=True, eq=False)
class DecodingStep:
    """State after one step. No tensor of it is written to later; `logits` is large, so keep steps without need of it.

    Attributes:
        index: this step, from 1.
        steps: planned steps n (the last step's index is smaller after an early exit or where few tokens were unknown).
        tokens: (B, n) long, the mask token where undecided.
        predicted: (B, n) long, every position filled: committed tokens, and this step's draws elsewhere.
        mask: (B, n) bool, still undecided.
        confidence: (B, n) float32 in [0, 1], the model's probability of the predicted token when it was drawn; 1 for
            tokens that were known from the start.
        logits: (B, n, V) float32 that the draws were made from: guided, and refined if this is the exit.
        final: whether this is the last step (then `tokens` equals `predicted`).
        unary: (B, n, V) float32, the logits before they were refined; None where nothing refines.
        plain: (B, n) long, what `predicted` would be without refining, by the same noise: the early exit's tokens;
            None where nothing refines.
    """

    index: int
    steps: int
    tokens: Tensor
    predicted: Tensor
    mask: Tensor
    confidence: Tensor
    logits: Tensor
    final: bool
    unary: Tensor | None = None
    plain: Tensor | None = None


class Scheme(Protocol):
    """What implementations of one sampler differ in: how many tokens a step leaves, and where its noise comes from."""

    def left(self, unknown: int, positions: int, settings: DecodingSettings) -> Sequence[int]:
        """Tokens still undecided after step 1, 2, … n, of `unknown` at the start among all `positions`; the last 0."""

    def token_noise(self, mask: Tensor, undecided: Sequence[int], width: int) -> Tensor:
        """Gumbel noise (M, width) for the M positions set in `mask` (B, n), `undecided[i]` of them in row i."""

    def order_noise(self, mask: Tensor, undecided: Sequence[int]) -> Tensor:
        """Gumbel noise (M,) on the confidence of the same positions; asked for after `token_noise`."""


@dataclass(frozen=True)
class RowByRow:
    """The scheme of this project: `mask_counts`, and a generator on the CPU for every row.

    A row draws for its own undecided positions only, so its picture does not depend on the batch.
    """

    generators: Sequence[torch.Generator]

    def left(self, unknown: int, positions: int, settings: DecodingSettings) -> Sequence[int]:
        return mask_counts(unknown, settings.steps, settings.schedule)

    def token_noise(self, mask: Tensor, undecided: Sequence[int], width: int) -> Tensor:
        return gumbel_noise(undecided, width, self.generators)

    def order_noise(self, mask: Tensor, undecided: Sequence[int]) -> Tensor:
        return gumbel_noise(undecided, 1, self.generators).squeeze(1)  # (M,)


def default_exit_step(steps: int) -> int:
    """Three quarters of the steps, at least one: 18 of 24 as in the quality table of MarkovGen (arXiv 2308.10997)."""
    return max(1, round(0.75 * steps))


def method_settings(method: str, steps: int = 24, exit_step: int | None = None, **options: Any) -> DecodingSettings:
    """The settings of a named method.

    With n = `steps` and k = `exit_step` (`default_exit_step(n)` if None):
      full         n of n steps; `exit_step` is not used
      early-exit   k of n steps, the rest take their current predictions
      markovgen    k of n steps, the random field infers the rest: hand a `finalise.MeanField` of it to `decode`
      rescheduled  k of k steps: the cost of the early exit, spent on a schedule of its own
      halton       k of k steps in Halton order with its arc cosine schedule and no confidence noise (arXiv 2503.17076)

    Args:
        options: further fields of `DecodingSettings`; what a method fixes wins over them.

    Raises:
        UserError: for a method that does not exist, or values out of range.
    """
    if method not in METHODS:
        raise UserError(f"No method is called {method!r}: choose one of {', '.join(METHODS)}.")
    if method == "full":
        return DecodingSettings(**{**options, "steps": steps})
    early = DecodingSettings(
        **{**options, "steps": steps, "exit_step": default_exit_step(steps) if exit_step is None else exit_step}
    )
    if method in ("early-exit", "markovgen"):
        return early
    alone: dict[str, Any] = {**options, "steps": early.exit_step}
    if method == "halton":
        alone |= {"order": "halton", "schedule": "arccos", "choice_temperature": 0.0}
    return DecodingSettings(**alone)


def for_few(settings: DecodingSettings, unknown: int) -> DecodingSettings:
    """The settings for so few unknown tokens that not every step has one to decide.

    Methods that leave early do so after the same share of the steps that there are: a loop that is over before its exit
    would save nothing, and ask no random field.
    """
    if settings.exit_step is None or not 0 < unknown < settings.steps:
        return settings
    exit_step = max(1, round(settings.exit_step * unknown / settings.steps))
    return replace(settings, steps=unknown, exit_step=exit_step)


@torch.no_grad()
def decode(
    tokens_to_logits: TokensToLogits,
    tokens: Tensor,
    mask_token_id: int,
    settings: DecodingSettings,
    generators: Sequence[torch.Generator] | Scheme,
    *,
    grid: tuple[int, int],
    inference: Inference | None = None,
) -> Iterator[DecodingStep]:
    """Decodes a batch of partly masked grids; yields a `DecodingStep` after every step, the last with `final` set.

    Every row follows the schedule for its own number of unknown tokens, and draws from its own generator on the CPU,
    only for its own undecided positions: one seed gives one picture in any batch and on any device, as far as the
    model's logits agree. Rows that are done wait unchanged; the loop ends with the last of them, at `exit_step` at the
    latest, and takes at least one step even if nothing is masked. Methods that differ only in their exit share all
    draws up to it.

    Logits are cast to float32 first (half precision underflows in sampling). Tokens are drawn by the Gumbel-max trick
    at `temperature` among the `top_k`. The confidence of a draw is its probability under the plain softmax of the
    logits, before temperature and top-k, so that it says what the model believes at any setting (our choice: MaskGIT
    has neither knob). Which draws to commit is decided as in MaskGIT by
    log confidence + choice_temperature · (1 − step / steps) · Gumbel noise.

    Args:
        tokens_to_logits: called once a step with the tokens (B, n) and the step's index.
        tokens: (B, n) long, row-major, `mask_token_id` where unknown; not modified. Known tokens are never changed.
        mask_token_id: marks an unknown token.
        settings: see `DecodingSettings`; guidance lives in `tokens_to_logits`.
        generators: one CPU generator a row (see `RowByRow`); or a `Scheme` of another implementation, to compare with.
        grid: (height, width) in tokens, height · width = n; fixed orders need it.
        inference: replaces the logits of the exit step (step n without one) before its draw: the Markov random field.
            Rows that are done before that step have nothing left to refine.

    Raises:
        ValueError: if the shapes, the grid and the generators do not fit together.
    """
    if tokens.dim() != 2 or tokens.shape[1] != grid[0] * grid[1]:
        raise ValueError(f"tokens of shape {tuple(tokens.shape)} are not a batch of {grid[0]} x {grid[1]} grids")
    scheme = RowByRow(generators) if isinstance(generators, Sequence) else generators
    if isinstance(scheme, RowByRow) and len(scheme.generators) != len(tokens):
        raise ValueError(f"{len(tokens)} rows need as many generators, not {len(scheme.generators)}")

    mask = tokens == mask_token_id  # (B, n)
    unknown: list[int] = mask.sum(1).tolist()
    left_by_step = zip(*(scheme.left(count, tokens.shape[1], settings) for count in unknown), strict=True)
    undecided_by_step = [tuple(unknown), *left_by_step]
    all_done = next(step for step, left in enumerate(undecided_by_step) if step and not any(left))
    exit_step = settings.exit_step or settings.steps
    last = min(exit_step, all_done)
    fixed_scores = settings.fixed_scores(grid, tokens.device)
    confidence = torch.ones(tokens.shape, device=tokens.device)

    def undecided_after(step: int, mask: Tensor, log_probability: Tensor) -> Tensor:
        if fixed_scores is None:
            noise = scheme.order_noise(mask, mask.sum(1).tolist()).to(mask.device)  # (M,)
            scores = settings.confidence_scores(log_probability, noise, step)
        else:
            scores = fixed_scores.expand_as(mask)[mask]  # (M,)
        return lowest(scores, mask, undecided_by_step[step])

    for step in range(1, last + 1):
        final = step == last
        logits = tokens_to_logits(tokens, step).float()
        finalise = settings.finalise if step == settings.exit_step else "sample"
        temperature = settings.temperature_at(step)
        noise: Tensor | None = None
        if temperature > 0 and finalise != "argmax":
            cut = settings.top_k is not None and finalise == "sample"
            width = min(settings.top_k or logits.shape[2], logits.shape[2]) if cut else logits.shape[2]
            noise = scheme.token_noise(mask, undecided_by_step[step - 1], width).mul_(temperature).to(logits.device)
        drawn, log_probability = draw_tokens(logits, mask, noise, settings.top_k)
        unary: Tensor | None = None
        plain: Tensor | None = None
        if inference is not None and step == exit_step:
            unary, plain = logits, tokens.masked_scatter(mask, drawn)
            if finalise == "decimate":
                rounds = evenly(step, settings.steps, settings.mrf_iterations)
                logits, (drawn, log_probability) = decimate(
                    unary, tokens, mask, inference, (drawn, log_probability), noise, settings.top_k, rounds,
                    undecided_after,
                )  # fmt: skip
            else:
                logits = refined_logits(unary, tokens, mask, inference, noise if finalise == "perturb" else None)
                drawn, log_probability = draw_tokens(logits, mask, noise, settings.top_k)
        predicted = tokens.masked_scatter(mask, drawn)
        confidence = confidence.masked_scatter(mask, log_probability.exp())
        mask = torch.zeros_like(mask) if final else undecided_after(step, mask, log_probability)
        tokens = predicted.masked_fill(mask, mask_token_id)
        yield DecodingStep(
            step, settings.steps, tokens, predicted, mask, confidence, logits, final, unary=unary, plain=plain
        )
