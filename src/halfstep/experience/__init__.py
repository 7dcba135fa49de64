"""Trajectories: how they are collected, where they are kept, how training samples them.

A *step* is one decision: what the account was, the executed action, the reward. An *episode* is consecutive steps
from a fresh account to ruin (terminated) or the end of its span (truncated). A policy is a `Protocol`; this package
knows no networks.
"""
