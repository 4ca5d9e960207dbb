"""Training batches in torch: whole batches at a time, from samples kept as they are stored.

An epoch's order, crops, flips and patches are drawn at once from a generator seeded by (seed, epoch), so an epoch
can start at any batch and gives what it would have given there. The order of work per batch: pick, to
float, normalise, pad with black, gather the cut (and mirrored) pixels, put patches of other pictures in. Pixels
are gathered with their channels together, which is what makes channels_last the cheaper of the two memory formats to
produce.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from onnxnas.data.types import IGNORE, DataSet, Split, crop_padding

TorchBatch = tuple[dict[str, Tensor], Tensor | None]


@dataclass(frozen=True, eq=False)
class _Draws:
    """Of one epoch, by position in it: sample, crop offsets (0 .. 2 pad), mirrored or not, and a patch.

    `patch` is [4, n], of 0 to 1 each: its area, its centre down and across, and whether a batch that begins here is
    mixed (where that is below the share of batches that are). [4, 0] where none is to be.
    """

    order: Tensor
    down: Tensor
    right: Tensor
    flip: Tensor
    patch: Tensor


class TorchBatches:
    """The samples of one split on one device.

    uint8 samples stay uint8 (no copy on the CPU) and are normalised batch by batch. Batches hold float32
    images in the model's layout; with `channels_last`, NCHW images come in that memory format.
    """

    def __init__(
        self,
        split: Split,
        dataset: DataSet,
        *,
        device: str | torch.device = "cpu",
        channels_last: bool = False,
    ) -> None:
        self.n = split.n
        self.dataset = dataset
        self.device = torch.device(device)
        self.channels_last = channels_last
        self._x = {name: _tensor(array).to(self.device) for name, array in split.x.items()}
        self._y = None if split.y is None else _tensor(split.y).to(self.device)
        self._affine = _affine(dataset, self.device)
        self._images = [name for name, x in self._x.items() if name in dataset.images and x.ndim == 4]
        self._dtypes = {name: _torch_dtype(dtype) for name, dtype in dataset.dtypes.items()}

    def count(self, batch_size: int, *, drop_last: bool = True, limit: int | None = None) -> int:
        """Number of batches of an epoch."""
        n = self.n if limit is None else min(limit, self.n)
        return n // batch_size if drop_last else -(-n // batch_size)

    def epoch(
        self,
        batch_size: int,
        *,
        seed: int = 0,
        epoch: int = 0,
        start: int = 0,
        shuffle: bool = True,
        augment: bool = True,
        mixed: float = 0.0,
        mirrored: bool = False,
        drop_last: bool = True,
        limit: int | None = None,
        part: tuple[int, int] = (1, 0),
    ) -> Iterator[TorchBatch]:
        """Yields ({input: [b, ...]}, y [b, ...] or None) from batch number `start` on.

        The same arguments give the same batches. `limit` takes that many samples (random ones when
        shuffled). Class labels come as int64. Of the share `mixed` of the batches every picture has a patch of
        another of its batch, from none of it to all (CutMix, Yun et al. 2019), and y is None: no label is true of
        them, a teacher has to say what they are (Beyer et al. 2022). What goes with the pictures is not exchanged.
        With `mirrored` the second epoch of each pair is the first one with every picture the other way round, so
        that both are seen equally often (alternating flip, Jordan, 94% on CIFAR-10 in 3.29 seconds, 2024, section 3.6).

        Raises:
            ValueError: batch_size below 1.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; expected 1 or more")
        first_draws = draws = self._draw(seed, epoch // 2 if mirrored else epoch, shuffle, mixed > 0)
        other = mirrored and epoch % 2 == 1 and "flip" in self.dataset.augment
        if other:
            draws = replace(draws, flip=~draws.flip)
        n = self.n if limit is None else min(limit, self.n)
        for k in range(start, self.count(batch_size, drop_last=drop_last, limit=limit)):
            first = k * batch_size
            own = part_of(min(batch_size, n - first), *part)
            augmented = augment and bool(self.dataset.augment)
            if mixed > 0 and float(draws.patch[3, first]) < mixed:
                whole, _ = self._batch(first_draws, slice(first, min(first + batch_size, n)), augmented)
                yield self._patched(whole, draws.patch[:3, first : first + batch_size], own, other), None
                continue
            yield self._batch(draws, slice(first + own.start, first + own.stop), augmented)

    def _draw(self, seed: int, epoch: int, shuffle: bool, mixed: bool) -> _Draws:
        generator = torch.Generator().manual_seed(_mix(seed, epoch))
        order = torch.randperm(self.n, generator=generator) if shuffle else torch.arange(self.n)
        pad = self._padding()
        shifts = torch.randint(0, 2 * pad + 1, (2, self.n), generator=generator)
        flip = torch.rand(self.n, generator=generator) < 0.5
        if "crop" not in self.dataset.augment:
            shifts = torch.full_like(shifts, pad)
        if "flip" not in self.dataset.augment:
            flip = torch.zeros_like(flip)
        patch = torch.rand((4, self.n if mixed else 0), generator=generator)
        return _Draws(*(t.to(self.device) for t in (order, shifts[0], shifts[1], flip, patch)))

    def _padding(self) -> int:
        if not self._images:
            return 0
        shape = self._x[self._images[0]].shape[1:]
        return crop_padding(*(shape[:2] if self.dataset.normalise.layout == "nhwc" else shape[1:]))

    def _black(self) -> float | Tensor:
        """The stored value zero, normalised: what a crop is padded with."""
        return 0.0 if self._affine is None else self._affine[1]

    def _batch(self, draws: _Draws, span: slice, augment: bool) -> TorchBatch:
        chosen = draws.order[span]
        where = (draws.down[span], draws.right[span], draws.flip[span], self._padding())
        x: dict[str, Tensor] = {}
        for name, store in self._x.items():
            raw = store.index_select(0, chosen)
            if name not in self._images:
                x[name] = self._flat(name, raw)
                continue
            rule = self.dataset.normalise
            pixels = self._normalised(raw)
            pixels = pixels if rule.layout == "nhwc" else pixels.permute(0, 2, 3, 1)
            pixels = crop_flip(pixels, *where, self._black()) if augment else pixels
            x[name] = self._laid_out(pixels).to(self._dtypes[name])
        if self._y is None:
            return x, None
        y = self._y.index_select(0, chosen)
        if augment and y.ndim >= 3:
            y = _crop_target(y, *where)
        return x, y if y.dtype.is_floating_point else y.long()

    def _patched(self, x: dict[str, Tensor], patch: Tensor, own: slice, mirrored: bool) -> dict[str, Tensor]:
        """The samples `own` of a batch, their pictures with patches of the ones before them, mirrored then or not."""
        done = {name: value[own] for name, value in x.items()}
        for name in self._images:
            nhwc = self.dataset.normalise.model_layout == "nhwc"
            pixels = x[name] if nhwc else x[name].permute(0, 2, 3, 1)
            made = patched(pixels, pixels.roll(1, 0), *patch[:, : len(pixels)])[own]
            done[name] = self._laid_out(made.flip(2) if mirrored else made)
        return done

    def _flat(self, name: str, raw: Tensor) -> Tensor:
        return (self._normalised(raw) if name in self.dataset.images else raw).to(self._dtypes[name])

    def _normalised(self, raw: Tensor) -> Tensor:
        x = raw.to(torch.float32)
        if self._affine is None:
            return x
        a, b = self._affine
        if a.numel() > 1 and self.dataset.normalise.layout != "nhwc":
            a, b = (v.view(-1, *(1,) * (x.ndim - 2)) for v in (a, b))
        if a.numel() > 1 and self.dataset.normalise.layout == "nhwc":
            # a row of pixels as one vector: three values at a time are too short for the processor
            width = x.shape[2]
            rows = x.view(x.shape[0], x.shape[1], -1)
            return torch.addcmul(b.repeat(width), rows, a.repeat(width)).view(x.shape)
        return torch.addcmul(b, x, a)

    def _laid_out(self, pixels: Tensor) -> Tensor:
        """Pixels [b, h, w, c] in the model's layout."""
        if self.dataset.normalise.model_layout == "nhwc":
            return pixels.contiguous()
        x = pixels.permute(0, 3, 1, 2)
        return x.contiguous(
            memory_format=torch.channels_last if self.channels_last else torch.contiguous_format
        )


def part_of(n: int, parts: int, index: int) -> slice:
    """Part number `index` of n samples; sizes differ by one at most, and none is empty when there are enough."""
    return slice(n * index // parts, n * (index + 1) // parts)


def crop_flip(
    pixels: Tensor, down: Tensor, right: Tensor, flip: Tensor, pad: int, fill: float | Tensor = 0
) -> Tensor:
    """Each image of [b, h, w, c] padded by `pad` with `fill`, cut at (down, right), mirrored where `flip`.

    `fill` is one value or [c]. `down`, `right` (0 .. 2 * pad) and `flip` (bool) are [b]. The result is contiguous.
    """
    b, h, w, c = pixels.shape
    wide = w + 2 * pad
    padded = pixels.new_empty((b, h + 2 * pad, wide, c))
    padded[:] = fill
    padded[:, pad : pad + h, pad : pad + w] = pixels
    across = torch.arange(w, device=pixels.device)
    columns = right[:, None] + torch.where(flip[:, None], across.flip(0), across)
    first = torch.arange(b, device=pixels.device) * (h + 2 * pad) + down
    rows = first[:, None] + torch.arange(h, device=pixels.device)
    index = rows[:, :, None] * wide + columns[:, None, :]
    return padded.view(-1, c).index_select(0, index.view(-1)).view(b, h, w, c)


def patched(pixels: Tensor, others: Tensor, area: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Each image of [b, h, w, c] with a patch of the one in `others`, from the same place.

    `area` [b] is the patch's share of an image, `down` and `right` [b] where its centre is, all of 0 to 1; it has the
    image's proportions, and what lies beyond the edge is left out (CutMix, Yun et al. 2019, section 3.1).
    """
    _, h, w, _ = pixels.shape
    half = area.sqrt() / 2

    def within(length: int, centre: Tensor) -> Tensor:
        place = (torch.arange(length, device=pixels.device) + 0.5) / length
        return (place - centre[:, None]).abs() < half[:, None]

    inside = within(h, down)[:, :, None] & within(w, right)[:, None, :]
    return torch.where(inside[..., None], others, pixels)


def _crop_target(y: Tensor, down: Tensor, right: Tensor, flip: Tensor, pad: int) -> Tensor:
    """The same cut for targets [b, h, w] (padded with the ignored label) or [b, c, h, w] (with zeros)."""
    fill = 0 if y.dtype.is_floating_point else IGNORE
    y = y if y.dtype.is_floating_point else y.long()
    pixels = y[..., None] if y.ndim == 3 else y.permute(0, 2, 3, 1)
    done = crop_flip(pixels, down, right, flip, pad, fill)
    return done[..., 0] if y.ndim == 3 else done.permute(0, 3, 1, 2).contiguous()


def _affine(dataset: DataSet, device: torch.device) -> tuple[Tensor, Tensor] | None:
    if dataset.normalise.identity:
        return None
    a, b = dataset.normalise.affine()
    return torch.from_numpy(a).to(device), torch.from_numpy(b).to(device)


def _tensor(array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> Tensor:
    array = np.ascontiguousarray(array)
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        array = array.astype(np.int64)
    if not array.flags.writeable:
        array = array.copy()
    return torch.from_numpy(array)


def _torch_dtype(dtype: np.dtype[np.generic]) -> torch.dtype:
    known: Mapping[str, torch.dtype] = {
        "float64": torch.float64,
        "int64": torch.int64,
        "int32": torch.int32,
        "int16": torch.int16,
        "int8": torch.int8,
        "uint8": torch.uint8,
        "bool": torch.bool,
    }
    return known.get(np.dtype(dtype).name, torch.float32)


def _mix(seed: int, epoch: int) -> int:
    """One generator seed of two numbers; neighbours give unrelated streams."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> np.uint64(1))
