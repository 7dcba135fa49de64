"""Networks as plain torch modules: encoder, actor, critic and the layers they are made of.

Axes: ``batch``; ``time`` (bars of one window, oldest first, index -1 the newest); ``bar`` (rows of the whole bar
table); ``feature``; ``token`` (what attention sees); ``width``; ``head``, ``kv_head``, ``key``; ``horizon``;
``path`` (accounts that share one bar); ``account``, ``action``, ``reward``. Every backward pass is autograd's.
Statistics, prepared keys and noise are arguments and results, never attributes of a module.
"""
