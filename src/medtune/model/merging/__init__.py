"""An adapter merged into the 16-bit base that it was trained on, into files that anybody can load.

`updates` reads what the adapter adds, `planning` decides on tensors and files, `weights` computes and writes them, and
`folder` adds what else belongs to a model. Weights that are stored packed are never merged into: what NF4 has lost
would be lost for good, and the sum rounded to 4 bit once more.
"""
