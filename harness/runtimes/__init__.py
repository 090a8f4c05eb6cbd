"""Models and attentions where they are deployed: exported, run by other runtimes, and compared with eager PyTorch."""
