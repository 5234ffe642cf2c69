"""The GPT, made from the parts in the other files: tokens in, logits for the next token out.

`model = GPT(config)`; `model.initialise(generator)`; `model(tokens)` → logits. Names and shapes of all parameters are
those of tinygpt.model.gpt.GPT, so each can load the other's weights with `load_state_dict`, and then both give the same
logits. The same seed gives the same initial weights. The arithmetic is in embedding.py, layers.py and attention.py.
Left out: everything that exists only for speed, and counting parameters and FLOPs.
"""

import torch
from torch import Tensor, nn

from tinygpt.model.gpt import GPTConfig
from tinygpt.scratch.attention import MultiHeadAttention
from tinygpt.scratch.embedding import Embedding, learned_positions, look_up
from tinygpt.scratch.layers import MLP, Linear, Norm, dropout


class Block(nn.Module):
    """Attention between tokens, then an MLP on each token separately.

    The output of both is added to their input, the residual stream. So a block learns only a change, and gradients
    reach the first block without passing through the others (He et al. 2015). The norm is inside the branch, so the
    stream itself is never rescaled (pre-norm, Xiong et al. 2020).
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.norm1 = Norm(config.n_embd, config)
        self.attention = MultiHeadAttention(config)
        self.norm2 = Norm(config.n_embd, config)
        self.mlp = MLP(config)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C) → (B, T, C)
        x = x + dropout(self.attention(self.norm1(x)), self.config.dropout, self.training)
        return x + dropout(self.mlp(self.norm2(x)), self.config.dropout, self.training)


class GPT(nn.Module):
    """Embed, run the blocks, normalise, and compute a logit for every token of the vocabulary."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = Embedding(config.vocab_size, config.n_embd)
        learned = config.position == "learned"
        self.position_embedding = Embedding(config.context_length, config.n_embd) if learned else None
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.norm = Norm(config.n_embd, config)
        self.head = Linear(config.n_embd, config.vocab_size, bias=False)
        if config.tie_embeddings:
            # A token's logit is then the dot product of the last vector and the token's embedding (Press & Wolf 2017).
            self.head.weight = self.token_embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of the next token after each token: int64 (B, T) → float (B, T, V).

        ValueError if T exceeds context_length.
        """
        T, room = tokens.shape[1], self.config.context_length
        if room < T:
            raise ValueError(f"{T} tokens do not fit into a context of {room}.")
        x = look_up(self.token_embedding.weight, tokens)  # (B, T, C)
        if self.position_embedding is not None:
            x = learned_positions(x, self.position_embedding.weight)
        x = dropout(x, self.config.dropout, self.training)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))  # (B, T, C) → (B, T, V)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw the initial weights: the same as tinygpt.model.gpt.GPT's for the same generator, on the CPU.

        Matrices have standard deviation 1/√inputs, which preserves the scale of activations. The last matrix of each
        branch starts at zero, so every block starts as the identity (Zhang et al. 2019). Logits start near zero, so all
        tokens are about equally likely and the first loss is about ln V.
        """
        C, tied = self.config.n_embd, self.config.tie_embeddings
        for name, parameter in self.named_parameters():  # in the order of definition above
            if parameter.dim() == 1:  # norms start with scale one, biases at zero
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)
            elif name.endswith(("attention.output.weight", "mlp.down.weight")):
                parameter.zero_()
            elif "embedding" in name:  # the scale of what blocks soon add; small if it is also the head
                parameter.normal_(0.0, min(0.02, 1 / C) if tied else 0.5, generator=generator)
            elif name == "head.weight":
                parameter.normal_(0.0, 0.001, generator=generator)
            else:
                inputs = parameter.shape[1]  # (outputs, inputs)
                parameter.normal_(0.0, inputs**-0.5, generator=generator)
