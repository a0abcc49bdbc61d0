"""Configuration: the schema of the YAML files, how they are read, what workers are sent.

What people write:

    schema/ section.py units.py
                          every option, its words, its bounds
    load.py yaml_source.py decode.py
                          from files to the schema, with every mistake in them
    check.py rules/ facts.py problems.py
                          what must hold between the parts, and with files on the disk
    reference.py json_schema.py docstrings.py describe.py
                          what is generated from the schema
    addresses.py destinations.py model_url.py columns.py identity.py
                          values that need more than a type

What processes go by:

    snapshot.py snapshot_codec.py
                          what control publishes and workers serve
    effects.py applied.py directions.py
                          what a changed `gateway.yaml` takes, and who follows it
    keys.py store_argument.py hosts.py
                          what processes say to each other, and where

What programs write beside it:

    frozen_bins.py        the file of a reference
    shadow_edit.py        a version added to a file that people wrote
"""
