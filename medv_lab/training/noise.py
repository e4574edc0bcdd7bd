"""Where the noise of training comes from: one generator, whose draws do not depend on the number of processes.

The numbers are drawn on the CPU for the batch of all processes, in the reference's order, and every process takes
its own rows. So one process with a batch of 2 B and two processes with B each train on the same noise.
"""

import torch
import torch.distributed as dist

from medv_lab.diffusion.forward import ForwardNoise, draw_noise


class NoiseSource:
    """Draws t and masks for a batch; the model calls it with its labels, images in."""

    def __init__(self, levels: str, t_min: float, generator: torch.Generator, ignore_index: int) -> None:
        """Keep how t is drawn ("uniform", or "stratified" from `t_min` up), generator (CPU) and label of no token."""
        self.levels, self.t_min, self.generator, self.ignore_index = levels, t_min, generator, ignore_index

    def __call__(self, labels: torch.Tensor) -> ForwardNoise:
        """One draw for this process's labels (B, T), of which every process has as many rows."""
        rows, length = labels.shape
        processes, process = 1, 0
        longest = length
        if dist.is_initialized():
            processes, process = dist.get_world_size(), dist.get_rank()
            lengths = torch.tensor(length, device=labels.device)
            dist.all_reduce(lengths, dist.ReduceOp.MAX)
            longest = int(lengths)
        total = rows * processes
        t = stratified_levels(total, self.t_min, self.generator) if self.levels == "stratified" else None
        every = torch.zeros(total, longest, dtype=torch.long)
        noise = draw_noise(every, t=t, generator=self.generator, ignore_index=self.ignore_index)
        own = slice(process * rows, (process + 1) * rows)
        t, p_mask, masked = (x[own].to(labels.device) for x in (noise.t, noise.p_mask, noise.masked))
        return ForwardNoise(t, p_mask, masked[:, :length] & (labels != self.ignore_index))


def stratified_levels(batch: int, t_min: float, generator: torch.Generator) -> torch.Tensor:
    """Noise levels (batch,), one from each of `batch` equal parts of [t_min, 1], in random order.

    The loss stays unbiased for t >= t_min and varies less from batch to batch. An answer of one word is masked with
    chance t and then weighs 1/t, so the variance of its loss goes with the mean of 1/t: 4.0 for t_min 0.02 and
    1.7 for 0.3.
    """
    order = torch.randperm(batch, generator=generator)
    return t_min + (1 - t_min) * ((order + torch.rand(batch, generator=generator)) / batch)
