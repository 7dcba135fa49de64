"""Trained policies for other programs: one ONNX file for MetaTrader 5, with its test vector and an expert advisor.

It knows nothing of how a policy was trained.
"""
