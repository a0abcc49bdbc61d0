"""Rows for the feature store that come over HTTP or from a stream.

writer.py             rows that are pushed
streams.py            a Redis stream, from where it was left
"""
