"""The test on unseen bars: rows as MetaTrader's tester shows them, baselines, intervals, and one HTML report.

It knows nothing of how a policy was trained.
"""
