"""How masked pre-training scales: grids of runs, and what their losses say of overfitting, transfer and size."""
