"""Analysis of trained networks: alignment of the two paths, receptive fields, kinds of errors, plots."""
