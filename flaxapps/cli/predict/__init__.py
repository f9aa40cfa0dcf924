"""`flaxapps predict`: classify photos, or compute features of them."""
