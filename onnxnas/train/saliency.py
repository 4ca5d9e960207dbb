"""How much the loss would change without a weight, to first order: weight times gradient, batch by batch.

The loss is that of the labels. Where there are none, labels are drawn from what the network itself says: a class
with the probability it is given, or, for outputs that are no scores, the output plus noise of variance 1. The mean of
the squares over batches is then the Fisher information (Theis et al., "Faster gaze prediction with dense networks and
Fisher pruning", 2018), which does not vanish where the network is its own teacher.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onnxnas.data import DataSet
from onnxnas.data.torch_batches import TorchBatches
from onnxnas.supernet import SuperNetwork
from onnxnas.train.losses import Criterion, Heads, Outputs
from onnxnas.types import Subnet

BATCH, BATCHES = 32, 32


def products(
    network: SuperNetwork, data: DataSet, loss: str = "auto", *, seed: int = 0, batches: int = BATCHES
) -> Iterator[Mapping[str, NDArray[np.float32]]]:
    """By initializer, weight times gradient over each of a few batches of the training split, not augmented.

    The network is the maximal one, its statistics as they are. Raises ConfigError for an unknown loss.
    """
    network.activate(Subnet())
    network.eval()
    weights = network.named_weights()
    criterion = Criterion(network.space.graph, data, loss, 0.0, 1.0)
    noise = torch.Generator().manual_seed(seed)
    samples = TorchBatches(data.train, data, device=network.device)
    for x, y in samples.epoch(BATCH, seed=seed, augment=False, drop_last=False, limit=BATCH * batches):
        network.zero_grad(set_to_none=True)
        outputs = network(x)
        value = (
            _own(criterion.heads, outputs, noise)
            if criterion.labels is None or y is None
            else criterion.labels(outputs, y)
        )
        value.backward()  # type: ignore[no-untyped-call]
        yield {
            name: (weight.detach() * weight.grad).float().cpu().numpy()
            for name, weight in weights.items()
            if weight.grad is not None
        }
    network.zero_grad(set_to_none=True)


def _own(heads: Heads, outputs: Outputs, noise: torch.Generator) -> Tensor:
    """The negative log-likelihood of labels drawn from the outputs."""
    total = outputs[0].new_zeros(())
    for index, (kind, output) in enumerate(zip(heads.kinds, outputs, strict=True)):
        if kind == "other":
            continue
        if kind == "dense":
            total = total + (output * torch.randn(output.shape, generator=noise).to(output)).mean()
            continue
        logits = heads.logits(index, output).movedim(1, -1).flatten(0, -2)
        drawn = torch.multinomial(logits.detach().softmax(1).cpu(), 1, generator=noise).flatten()
        total = total + torch.nn.functional.cross_entropy(logits, drawn.to(logits.device))
    return total
