"""Training: the encoder to forecast, the critic to value, the actor to trade.

Everything random follows from (seed, name, counter), so an interrupted training continues to the same bytes.
"""
