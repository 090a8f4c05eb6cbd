"""Looking at attentions inside models, from outside: which tokens each one mixes, and what that does.

* `places`: where the tokens of an attention lie on the image; `capture`: what reaches it in a forward pass.
* `models`: models that are looked at, and images as they see them.
* `maps`: what chosen tokens attend to, over the image; `analysis`, `metrics`: what blocks are like over many images.
"""
