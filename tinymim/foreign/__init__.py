"""Other people's weights: fetched, read without running their code, recognised, brought under timm's names."""
