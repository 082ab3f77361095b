"""Chains: stages that start from each other's weights, each a fit of its own, run and resumed as one."""
