"""Makes bundles of weights: segments, manifest, accuracy table, references, model card."""
