"""Reference implementations of every part of a GPT, in plain tensor arithmetic, to be read in this order.

     1. bpe.py         text → tokens: learning which pairs of bytes to merge, and showing each merge
     2. embedding.py   tokens → vectors, and their positions
     3. layers.py      operations on each vector: linear layers, softmax, norms, GELU, SwiGLU, dropout
     4. attention.py   how tokens attend to each other, in five steps
     5. gpt.py         the whole model: a block, the stack of blocks, the initial weights
     6. loss.py        the error of a prediction: cross-entropy, perplexity, bits per byte
     7. optimizers.py  how to change the weights, given their gradients: AdamW, Muon
     8. training.py    one training step: clipping, schedules, which weights get which optimizer
     9. train.py       the training loop, and the pipeline stage that runs it
    10. sampling.py    choosing the next token, and generating text
    11. backward.py    computing gradients: two backward passes by hand
    12. chat.py        fine-tuning on conversations: the mask of answers, records packed into rows

Each has a fast counterpart in tinygpt/ or PyTorch; tests/scratch/ shows that both agree. To train a model with these:
`dvc repro scratch/dvc.yaml`.
"""
