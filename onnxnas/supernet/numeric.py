"""The super-network for those who speak numpy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from onnxnas.supernet.network import SuperNetwork
from onnxnas.types import Subnet


@torch.no_grad()
def run(network: SuperNetwork, subnet: Subnet, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
    """Outputs of `subnet`, in graph order, in evaluation mode with the statistics of the file; it stays active."""
    network.eval()
    network.activate(subnet)
    given = {name: torch.from_numpy(np.array(value)).to(network.device) for name, value in feeds.items()}
    return [output.cpu().numpy() for output in network(given)]
