"""Recorded episodes on disk in, arrays for training out."""
