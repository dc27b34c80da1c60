"""One step of training: the published loss, its gradients computed in parts that fit the cache, one Adam update.

Source: Naval Marimont & Tarroni 2021; Park et al. 2019.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from anofield._random import seed_of
from anofield.errors import MachineError
from anofield.field.codes import CodeTable
from anofield.field.decoder import FieldModule, folded_weights, outputs_at
from anofield.field.device import Precision, wants_bfloat16
from anofield.field.feed import Batch
from anofield.field.logs import Logs
from anofield.field.model import build_field
from anofield.field.ranks import Ranks, interleave
from anofield.field.specs import Specs

RAMP_EPOCHS = 100  # published: the code penalty grows linearly over these epochs
PART_POINTS = 16_384  # points whose gradients are computed at a time on a CPU: activations that fit the cache


@dataclass
class Run:
    """State of a training run that changes from step to step.

    Attributes:
        specs: Specs of the experiment.
        case_ids: All cases of the run, over all ranks.
        field: The network.
        codes: Codes of this rank's cases.
        optimizer: Adam; group 0 is the network, group 1 the codes.
        logs: Logs up to now.
        device: Device of the network and the codes.
        bfloat16: Whether matrices are multiplied in bfloat16.
        ranks: Position of this process among those of the run.
        epoch: Whole epochs done.
        step: Steps done of the next epoch.
        case_contents: Content hash of the scan of every case; empty texts where it is not known.
        point_loss: The function of that name, or its compiled form.
    """

    specs: Specs
    case_ids: list[str]
    field: FieldModule
    codes: CodeTable
    optimizer: torch.optim.Adam
    logs: Logs
    device: torch.device
    bfloat16: bool = False
    ranks: Ranks = field(default_factory=Ranks)
    epoch: int = 0
    step: int = 0
    case_contents: list[str] = field(default_factory=list)
    point_loss: Callable[..., Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.point_loss = point_loss

    @property
    def steps_per_epoch(self) -> int:
        """Number of steps of an epoch; the last step may be smaller."""
        return -(-len(self.case_ids) // self.specs.scenes_per_batch)

    def set_precision(self, precision: Precision, *, compiled: bool = False) -> None:
        """Set how the loss is computed; `auto` takes bfloat16 where the device multiplies it faster."""
        self.bfloat16 = wants_bfloat16(precision, self.device)
        if compiled:
            self.point_loss = torch.compile(point_loss)

    def all_codes(self, rows: Tensor) -> Tensor:
        """One row per case of the run, on the CPU, from the rows of each rank's own cases."""
        return interleave(self.ranks.gather(rows.detach().cpu()))


def start_run(specs: Specs, case_ids: list[str], device: torch.device, ranks: Ranks | None = None) -> Run:
    """Start a run with a fresh network, codes and optimiser, seeded by the specs.

    Args:
        specs: Specs of the experiment.
        case_ids: All cases; a rank keeps the codes of its own.
        device: Where to train.
        ranks: Position of this process among those of the run; None for a single process.
    """
    ranks = ranks or Ranks()
    torch.manual_seed(specs.seed)
    generator = torch.Generator().manual_seed(specs.seed)
    try:
        network = build_field(specs).to(device)
        codes = CodeTable(case_ids, specs.code_length, specs.code_bound, specs.code_init_std_dev, generator)
        codes = codes.only(ranks.owned(case_ids)).to(device)
    except (RuntimeError, MemoryError) as error:  # torch reports a failed allocation as RuntimeError
        raise MachineError(
            "the network and codes do not fit into memory",
            why=str(error).splitlines()[0],
            remedy="lower dims or CodeLength",
        ) from error
    groups = [{"params": list(network.parameters())}, {"params": list(codes.parameters())}]
    optimizer = torch.optim.Adam(groups, lr=1e-3, fused=device.type == "cuda")
    return Run(specs, case_ids, network, codes, optimizer, Logs(), device, ranks=ranks)


def point_loss(
    network: FieldModule, points: Tensor, targets: Tensor, codes: Tensor, weights: Sequence[Tensor]
) -> Tensor:
    """Sum of the cross-entropy over all points.

    Args:
        network: The field.
        points: Field coordinates, (case, point, 3).
        targets: Classes, (case, point).
        codes: One code per case, (case, code).
        weights: Result of `folded_weights`.
    """
    logits = outputs_at(network, points, codes, weights).float().flatten(0, 1)  # (case · point, class)
    return functional.cross_entropy(logits, targets.flatten(), reduction="sum")


def batch_loss(run: Run, points: Tensor, targets: Tensor, rows: Tensor, epoch: int) -> Tensor:
    """Published loss of a batch: [Σ cross-entropy + ramped code penalty] / cases, in one graph.

    Args:
        run: Network, codes and specs.
        points: Field coordinates, (case, point, 3).
        targets: Classes, (case, point).
        rows: Rows of the code table, (case,).
        epoch: Counted from 1.

    Source:
        Naval Marimont & Tarroni 2021, published training code.
    """
    return _part_loss(run, points, targets, run.codes(rows), folded_weights(run.field), epoch) / len(rows)


def _part_loss(
    run: Run, points: Tensor, targets: Tensor, codes: Tensor, weights: Sequence[Tensor], epoch: int
) -> Tensor:
    """Loss of some cases, not yet divided by the number of cases in the step."""
    specs = run.specs
    with torch.autocast(run.device.type, torch.bfloat16, enabled=run.bfloat16):
        loss = run.point_loss(run.field, points, targets, codes, weights)
    if specs.code_regularization:
        ramp = min(1.0, epoch / RAMP_EPOCHS)
        loss = loss + specs.code_regularization_lambda * ramp * points.shape[1] * codes.norm(dim=1).sum()
    return loss


def train_step(run: Run, batch: Batch, rows: Tensor, epoch: int, cases: int) -> Tensor:
    """Take one optimiser step and return this rank's share of the loss, still on the device.

    The weights are folded once; on a CPU the gradients are computed part by part and summed, which gives the same sum.
    A field of another package is not folded: its gradients are those of plain autograd.

    Args:
        run: State of the training; changed in place.
        batch: Points and classes of this rank's cases.
        rows: Rows of its code table, (case,).
        epoch: Counted from 1.
        cases: Number of cases of the step over all ranks.
    """
    points, targets = batch
    folded, codes = folded_weights(run.field), run.codes(rows.to(run.device, non_blocking=True))
    weights, leaf = [_leaf(weight) for weight in folded], _leaf(codes)
    run.optimizer.zero_grad(set_to_none=True)
    total = torch.zeros((), device=run.device)
    for first in range(0, len(rows), width := _cases_per_part(run, points.shape[1])):
        some = slice(first, first + width)
        torch.manual_seed(seed_of(run.specs.seed, epoch, "dropout", run.codes.ids[int(rows[first])]))
        loss = _part_loss(run, points[some], targets[some], leaf[some], weights, epoch) / cases
        loss.backward()
        total += loss.detach()
    _pull_back([*folded, codes], [*weights, leaf])
    gradients = [_gradient(parameter) for parameter in run.field.parameters()]
    run.ranks.sum_(gradients)
    _gradient(run.codes.weight)
    if run.specs.gradient_clip_norm is not None:
        torch.nn.utils.clip_grad_norm_(run.field.parameters(), run.specs.gradient_clip_norm)
    run.optimizer.step()
    return total


def _cases_per_part(run: Run, points: int) -> int:
    """Number of cases whose gradients are computed at a time; a GPU takes the whole batch."""
    return len(run.codes.ids) if run.device.type == "cuda" else max(1, PART_POINTS // points)


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().requires_grad_()


def _pull_back(results: Sequence[Tensor], leaves: Sequence[Tensor]) -> None:
    """Propagate the gradients that the leaves collected to the tensors that the results were computed from."""
    pairs = [(made, leaf.grad) for made, leaf in zip(results, leaves, strict=True) if leaf.grad is not None]
    pairs = [(made, gradient) for made, gradient in pairs if made.requires_grad and made.numel()]
    if pairs:
        torch.autograd.backward([made for made, _ in pairs], [gradient for _, gradient in pairs])


def _gradient(parameter: Tensor) -> Tensor:
    """The gradient of a parameter; zeros where a rank without cases has none, so that Adam still moves it."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad
