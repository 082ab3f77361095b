"""Many fits: chains, studies, grids, comparisons, the papers in one run."""
