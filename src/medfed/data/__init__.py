"""Floor 2: a site's rows, from the connector to typed tables, splits, encoding and the data sheet."""
