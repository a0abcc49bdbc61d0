"""Online features: views, storage and joins. Usable without `serving`."""
