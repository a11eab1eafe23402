"""Muon: momentum whose matrix updates are orthogonalised (Jordan et al., 2024).

torch.optim.Muon does the Newton–Schulz iteration in bf16, one matrix at a time, which CPUs without bf16 units take
three times as long for; here it runs in float32 there, on all matrices of one shape at once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalised(update: Tensor, steps: int = 5) -> Tensor:
    """Each matrix of (K, rows, columns) moved near the nearest semi-orthogonal one by Newton–Schulz iterations."""
    a, b, c = _COEFFICIENTS
    tall = update.shape[-2] > update.shape[-1]
    x = update.bfloat16() if update.is_cuda else update.float()
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised; for the weights inside the blocks only.

    Args:
        params: matrices, or kernels (out, in, k, k), which are taken as matrices (out, in · k²).
        lr: spectral norm of one update, before the factor max(1, rows / columns)^½.
        momentum: decay of the momentum.
        weight_decay: decoupled.
    """

    def __init__(
        self, params: Iterable[Tensor], lr: float = 0.02, momentum: float = 0.95, weight_decay: float = 0.01
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[parameter.shape].append(parameter)
            for parameters in by_shape.values():
                gradients = torch.stack([p.grad for p in parameters if p.grad is not None])  # (K, *shape)
                for parameter in parameters:
                    self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
                buffers = [self.state[parameter]["momentum"] for parameter in parameters]
                torch._foreach_lerp_(buffers, list(gradients), 1 - group["momentum"])
                nesterov = gradients.lerp(torch.stack(buffers), group["momentum"])
                matrices = nesterov.flatten(2)  # (K, rows, columns, …) -> (K, rows, columns)
                updates = orthogonalised(matrices).to(gradients.dtype).view_as(gradients)
                rate = group["lr"] * max(1.0, matrices.shape[1] / matrices.shape[2]) ** 0.5
                torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(parameters, list(updates), alpha=-rate)
