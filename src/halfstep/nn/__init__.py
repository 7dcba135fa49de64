"""Networks as plain torch modules: layers, encoders, actor and critic, and the loss of a forecast.

Axes: ``batch``; ``time`` (bars of one window, oldest first, index -1 the newest); ``bar`` (rows of the whole bar
table); ``feature``; ``token`` (what attention sees); ``width``; ``head``, ``kv_head``, ``key``; ``variable`` (a
unitary series), ``position``, ``filter``; ``hidden``; ``horizon``; ``segment``; ``path`` (accounts that share one
bar); ``account``, ``action``, ``reward``.

Every backward pass is autograd's. Statistics, recurrent states, prepared keys and noise are arguments and results,
never attributes of a module; only the caller draws noise. Nothing here replaces a NaN or moves a tensor to another
device. Modules work in float64, float32, bfloat16 and float16; statistics, cell states, segments, transforms and
log-probabilities are computed in at least float32.
"""
