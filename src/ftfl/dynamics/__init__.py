"""The dynamics model: target cells, the ensemble, its training and its predictions."""
