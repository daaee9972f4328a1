"""Tools that make, cut and check data sets: a package of its own over mmdiff.media."""
