"""The GPT, put together from the files before: tokens in, logits for the next token out.

`model = GPT(config)`; `model.initialise(generator)`; `model(tokens)` → logits. Names and shapes of all parameters are
those of tinygpt.model.gpt.GPT, so `load_state_dict` of one takes the weights of the other, and both then give the same
scores; the same seed also gives the same starting weights. That is all that nn.Module is for; the arithmetic is in
embedding.py, layers.py and attention.py. Left out: every way to be quick, and the counting of parameters and FLOPs.
"""

import torch
from torch import Tensor, nn

from tinygpt.model.gpt import GPTConfig
from tinygpt.scratch.attention import MultiHeadAttention
from tinygpt.scratch.embedding import Embedding, learned_positions, look_up
from tinygpt.scratch.layers import MLP, Linear, Norm, dropout


class Block(nn.Module):
    """Attention between tokens, then an MLP on each token alone.

    Both are added to the vector that came in, the residual stream, rather than replacing it: so a block needs to learn
    only what to change, and gradients reach the first block undiminished (He et al. 2015). The norm stands inside the
    branch, and the stream itself is never rescaled (pre-norm, Xiong et al. 2020).
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
    """Embed, run the blocks one after another, normalise, and compute a logit for every token."""

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
            # A token's logit is then how much the last vector resembles the token's own (Press & Wolf 2017).
            self.head.weight = self.token_embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of the next token after each token: int64 (B, T) → float (B, T, V).

        ValueError where there are more tokens than the context has room for.
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
        """Draw the starting weights: the same numbers as tinygpt.model.gpt.GPT's for the same generator, on the CPU.

        A sum of n products with numbers of size 1/√n keeps the size of what comes in: so matrices start with that.
        What a block adds starts at zero, and the stack as a whole begins by changing nothing (Zhang et al. 2019).
        Logits start near zero, so at first all tokens are about equally likely, and the first loss is ln V.
        """
        C, tied = self.config.n_embd, self.config.tie_embeddings
        for name, parameter in self.named_parameters():  # in the order in which the parts are made above
            if parameter.dim() == 1:  # norms begin by scaling by one, biases by adding nothing
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)
            elif name.endswith(("attention.output.weight", "mlp.down.weight")):
                parameter.zero_()
            elif "embedding" in name:  # as large as what blocks soon add; small where it has to serve as the head
                parameter.normal_(0.0, min(0.02, 1 / C) if tied else 0.5, generator=generator)
            elif name == "head.weight":
                parameter.normal_(0.0, 0.001, generator=generator)
            else:
                inputs = parameter.shape[1]  # (outputs, inputs)
                parameter.normal_(0.0, inputs**-0.5, generator=generator)
