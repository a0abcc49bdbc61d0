"""Configuration: the schema of the YAML files, how they are read, what workers are sent."""
