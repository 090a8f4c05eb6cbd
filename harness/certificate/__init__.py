"""The certificate of an attention: the laws by which it is tested."""
