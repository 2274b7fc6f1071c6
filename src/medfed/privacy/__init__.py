"""Protection of what leaves a site: secure sums, differential privacy, set intersection."""
