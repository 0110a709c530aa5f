"""What is evaluated: a model with an adapter, a prompt, a decoding, a selection and a post-processing."""
