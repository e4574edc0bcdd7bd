"""A small denoiser made for the tests, and runs of it."""

import numpy as np
import torch

from medv_lab.config import GenerationSettings
from medv_lab.decoding.tracing import ids_in, make_trace
from medv_lab.diffusion.sampler import sample

VOCABULARY, HIDDEN, MASK = 23, 12, 22
STOP = 1
SETTINGS = GenerationSettings(gen_length=12, block_length=6, steps=12)


class Toy(torch.nn.Module):
    """Mixes all positions, so that every commit changes every later prediction; keeps what its body was given."""

    def __init__(self, mask_bias: float = -8.0):
        super().__init__()
        torch.manual_seed(0)
        self.table = torch.nn.Embedding(VOCABULARY, HIDDEN)
        layer = torch.nn.TransformerEncoderLayer(HIDDEN, 2, 24, batch_first=True, norm_first=True)
        self.layers = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.out = torch.nn.Linear(HIDDEN, VOCABULARY)
        with torch.no_grad():
            self.out.weight *= 6
            self.out.bias[MASK] = mask_bias
        self.seen = []
        self.head_rows = []
        self.eval().double()

    def embed_tokens(self, ids):
        return self.table(ids)

    def backbone(self, inputs_embeds, attention_mask=None, position_ids=None, cache=None, query_indices=None):
        assert cache is None
        hidden = self.mixed(inputs_embeds, attention_mask, position_ids)
        return hidden if query_indices is None else hidden.take_along_dim(query_indices[..., None], 1)

    def mixed(self, inputs_embeds, attention_mask, position_ids):
        self.seen.append(inputs_embeds.clone())
        length = inputs_embeds.shape[1]
        places = torch.arange(length).expand(len(inputs_embeds), -1) if position_ids is None else position_ids
        angle = places[..., None] * torch.arange(1, HIDDEN + 1) * 0.37
        inputs = inputs_embeds + angle.sin()
        if attention_mask is not None and attention_mask.ndim == 4:
            return self.layers(inputs, mask=~attention_mask[:, 0].repeat_interleave(2, 0))  # of each head
        padding = None if attention_mask is None else ~attention_mask.bool()
        return self.layers(inputs, src_key_padding_mask=padding)

    def head(self, hidden):
        self.head_rows.append(len(hidden))
        return self.out(hidden)


def prompts(batch=8, longest=9):
    """Prompts of different lengths, padded on the left, and their attention mask."""
    random = np.random.default_rng(3)
    ids = torch.zeros(batch, longest, dtype=torch.long)
    mask = torch.zeros(batch, longest, dtype=torch.long)
    for row in range(batch):
        size = int(random.integers(3, longest + 1))
        ids[row, -size:] = torch.from_numpy(random.integers(0, MASK, size))
        mask[row, -size:] = 1
    return ids, mask


def run(toy, ids, mask=None, settings=SETTINGS, stops=(), **more):
    """All step records of a run."""
    prefix = toy.embed_tokens(ids)
    return list(
        sample(toy, prefix, settings, mask_token_id=MASK, attention_mask=mask, stop_ids=stops, **more)
    )


def final(record, row=0):
    """The answer's ids after a pass."""
    return record.canvas[row, : record.stops[row]].tolist()


def trace_of(records, row=0, settings=SETTINGS, **more):
    return make_trace(
        records,
        row,
        gen_length=settings.gen_length,
        block_length=settings.block_length,
        mask_token_id=MASK,
        pieces={token: f" w{token}é".encode() for token in ids_in(records, row) - {MASK}},
        manifest={"seed": 0},
        **more,
    )
