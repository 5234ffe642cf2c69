"""Reference implementations: all that a GPT is made of, in plain tensor arithmetic, to be read in this order.

     1. bpe.py         text → tokens: which pairs of bytes are merged, and watching it happen
     2. embedding.py   tokens → vectors; where in the text each one stands
     3. layers.py      what is done to each vector alone: matrices, softmax, norms, GELU, SwiGLU, dropout
     4. attention.py   how tokens attend to each other, in five steps
     5. gpt.py         the parts put together: a block, the stack, the starting weights
     6. loss.py        how wrong a prediction was: cross-entropy, bits per byte
     7. optimizers.py  how to change the weights, given their gradients: AdamW, Muon
     8. training.py    one step of training: clipping, schedules, which weights get which optimizer
     9. train.py       the training loop, and the pipeline stage that runs it
    10. sampling.py    which token to write next, and the next, and the next
    11. backward.py    where gradients come from: two backward passes by hand

Each does what a fast one in tinygpt/ or in PyTorch does, and tests/scratch/ proves that both agree. To train them:
`dvc repro scratch/dvc.yaml`.
"""
