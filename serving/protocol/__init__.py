"""Open Inference Protocol V2 as bytes: codecs without I/O."""
