"""Protobuf code generated from `inference.proto`; `python -m serving.protocol._generated.generate`."""
