"""Dynamic batching: which texts are computed together, when, and on which thread. Knows tokens, lanes and tenants, never a model."""
