"""Training a model, and evaluating one."""
