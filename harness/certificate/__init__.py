"""The certificate of an attention: the laws that it is tested by."""
