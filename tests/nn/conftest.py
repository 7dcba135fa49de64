"""One thread per test process: networks this small lose more to waiting for each other than they gain."""

import torch

torch.set_num_threads(1)
