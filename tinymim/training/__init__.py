"""One fit, never lost: run folder, checkpoints, exact resume, pre-emption, guard against steps that are not finite."""
