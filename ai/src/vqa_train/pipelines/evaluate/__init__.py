"""eval and compare: models and stored predictions against labels."""
