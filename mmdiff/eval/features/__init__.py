"""Feature extractors: clips to arrays, by pretrained networks that the user names."""
