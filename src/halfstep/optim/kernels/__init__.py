"""The update rule, twice with one meaning: `reference` (plain torch, every device) and `cpu` (numba, one launch per step).

Tensors, tables and numbers in; tensors changed in place. No modules, no configuration.
"""
