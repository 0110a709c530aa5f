"""Attention dilution: the share of the model's attention on the prompt, for each generated token.

Selective Prompt Anchoring (arXiv 2408.09121), section 2, Fig. 2 and 3, and appendix A.1. Command:

    cptlab dilution backbone=kata_lm benchmark=kata limit=60

`programs` generates, `attention_share` computes the shares, `summary` averages them over tasks, `figures` draws them.
"""
