"""Copies of the log elsewhere: S3, Kafka, Delta Lake. Every file at least once, none left out."""
