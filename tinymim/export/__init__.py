"""Trained networks in the forms that others open, each checked and with a model card: timm, Hugging Face, ONNX,
``torch.export``."""
