"""How the embedded models were trained: real data, examples made from it, and the training runs.

Needs the extra `train` and the datasets' folder; nothing that answers a question imports it.
"""
